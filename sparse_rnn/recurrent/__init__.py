"""What a recurrent layer is: its kernels and gates, one step of each cell, the inputs it receives."""
