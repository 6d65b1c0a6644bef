/* The equations of the cells, forwards and backwards, on a group of GROUP numbers: some units, each with its lanes. */

/* A group in a step. Without a peephole its rows are NULL. */
typedef struct {
  REAL pre[MOST_SLOTS][GROUP];
  REAL h_before[GROUP], c_before[GROUP], h[GROUP], c[GROUP];
  REAL peephole[3][GROUP];
  REAL grad_h[GROUP], grad_out[GROUP], grad_c[GROUP], grad_h_before[GROUP], grad_c_before[GROUP];
  REAL slopes[MOST_SLOTS][GROUP];
} group;

INLINE int gates_of(int64_t cell) { return cell == LSTM ? 4 : cell == GRU ? 3 : 1; }
INLINE int slots_of(int64_t cell) { return cell == LSTM || cell == GRU ? 4 : 1; }

/* Of a kernel: a projection has neither. */
INLINE int gates_in(int64_t cell, int role) { return role == HR ? 1 : gates_of(cell); }
INLINE int slots_in(int64_t cell, int role) { return role == HR ? 1 : slots_of(cell); }

/* The candidate of a GRU multiplies what comes from the state by the reset gate, so that part stands apart. */
INLINE int slot_of(int64_t cell, int role, int gate) { return cell == GRU && role == HH && gate == 2 ? 3 : gate; }

#define EACH_VECTOR for (int at = 0; at < GROUP; at += LANES)

/* From pre-activations to h and c; what backward needs takes the place of the pre-activations. */
static void cell_forward(int64_t cell, int peephole, group *g) {
  switch (cell) {
  case RNN_TANH:
    EACH_VECTOR store(g->h + at, hyperbolic_tangent(load(g->pre[0] + at)));
    break;
  case RNN_RELU:
    EACH_VECTOR {
      vec x = load(g->pre[0] + at), zero = {0};
      store(g->h + at, either(x < zero, zero, x));
    }
    break;
  case GRU:
    EACH_VECTOR {
      vec r = sigmoid(load(g->pre[0] + at)), z = sigmoid(load(g->pre[1] + at));
      vec n = hyperbolic_tangent(load(g->pre[2] + at) + r * load(g->pre[3] + at));
      store(g->h + at, n + z * (load(g->h_before + at) - n));
      store(g->pre[0] + at, r), store(g->pre[1] + at, z), store(g->pre[2] + at, n);
    }
    break;
  default:
    EACH_VECTOR {
      vec before = load(g->c_before + at), to_i = load(g->pre[0] + at), to_f = load(g->pre[1] + at);
      vec to_o = load(g->pre[3] + at);
      if (peephole) to_i += load(g->peephole[0] + at) * before, to_f += load(g->peephole[1] + at) * before;
      vec i = sigmoid(to_i), f = sigmoid(to_f), new = hyperbolic_tangent(load(g->pre[2] + at));
      vec c = f * before + i * new;
      if (peephole) to_o += load(g->peephole[2] + at) * c;
      vec o = sigmoid(to_o);
      store(g->c + at, c), store(g->h + at, o * hyperbolic_tangent(c));
      store(g->pre[0] + at, i), store(g->pre[1] + at, f), store(g->pre[2] + at, new), store(g->pre[3] + at, o);
    }
  }
}

/* From the gradients of h and c to those of the pre-activations ("slopes") and of the states before. */
static void cell_backward(int64_t cell, int peephole, group *g) {
  const vec zero = {0}, one = zero + 1;
  switch (cell) {
  case RNN_TANH:
    EACH_VECTOR {
      vec h = load(g->h + at);
      store(g->slopes[0] + at, load(g->grad_h + at) * (one - h * h)), store(g->grad_h_before + at, zero);
    }
    break;
  case RNN_RELU:
    EACH_VECTOR {
      store(g->slopes[0] + at, either(load(g->h + at) > zero, load(g->grad_h + at), zero));
      store(g->grad_h_before + at, zero);
    }
    break;
  case GRU:
    EACH_VECTOR {
      vec r = load(g->pre[0] + at), z = load(g->pre[1] + at), n = load(g->pre[2] + at);
      vec grad_h = load(g->grad_h + at);
      vec to_n = grad_h * (one - z) * (one - n * n);
      store(g->slopes[0] + at, to_n * load(g->pre[3] + at) * r * (one - r));
      store(g->slopes[1] + at, grad_h * (load(g->h_before + at) - n) * z * (one - z));
      store(g->slopes[2] + at, to_n), store(g->slopes[3] + at, to_n * r);
      store(g->grad_h_before + at, grad_h * z);
    }
    break;
  default:
    EACH_VECTOR {
      vec i = load(g->pre[0] + at), f = load(g->pre[1] + at), new = load(g->pre[2] + at), o = load(g->pre[3] + at);
      vec before = load(g->c_before + at), grad_h = load(g->grad_h + at), grad_c = load(g->grad_c + at);
      vec tanh_c = hyperbolic_tangent(load(g->c + at));
      vec to_o = grad_h * tanh_c * o * (one - o);
      grad_c += grad_h * o * (one - tanh_c * tanh_c);
      if (peephole) grad_c += to_o * load(g->peephole[2] + at);
      vec to_i = grad_c * new * i * (one - i), to_f = grad_c * before * f * (one - f);
      vec grad_before = grad_c * f;
      if (peephole) grad_before += to_i * load(g->peephole[0] + at) + to_f * load(g->peephole[1] + at);
      store(g->slopes[0] + at, to_i), store(g->slopes[1] + at, to_f);
      store(g->slopes[2] + at, grad_c * i * (one - new * new)), store(g->slopes[3] + at, to_o);
      store(g->grad_c_before + at, grad_before), store(g->grad_h_before + at, zero);
    }
  }
}
