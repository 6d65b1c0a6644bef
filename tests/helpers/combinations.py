def covering(combinations):
    """Gives the places of a few of the combinations, which are sets of values, so that they hold every value of any."""
    chosen, seen = set(), set()
    for new in range(max(map(len, combinations)), 0, -1):
        for place, values in enumerate(combinations):
            if len(values - seen) >= new:
                chosen.add(place)
                seen |= values
    return chosen
