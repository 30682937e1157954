"""The texts that ``tilth new`` writes, by kind of model."""

NET = """\
tilth: 1
name: NAME
title: A small net for handwritten digits
options: {width: 16, classes: 10}
defaults: {conv: {bias: false, init: he}}
expect:
  NAME: {parameters: 24058, depth: 4}
data:
  digits: {source: digits, size: [28, 28]}
model: |
  def stage(w, s=1) = conv(w, 3, stride=s) as conv >> bn as bn >> relu

  input image : f32[N, 1, 28, 28]
  logits = image
      >> stage(width) as stage1
      >> stage(2*width, 2) as stage2
      >> stage(4*width, 2) as stage3
      >> gap >> linear(classes) as head
  output logits
train:
  data: digits
  objective: |
    input label : i32[N]
    loss = cross_entropy(logits, label)
  optimizer: sgd(lr=0.1, momentum=0.9, nesterov=true, weight_decay=5e-4)
  schedule: warmup(1) >> cosine(9)
  batch: 32
  epochs: 10
  metrics:
    accuracy: accuracy(logits, label)
"""

RECURRENT = """\
tilth: 1
name: NAME
title: Long short-term memory, one layer and a class for the whole sequence
options: {D: 8, H: 32, classes: 10}
model: |
  input x : f32[N, T, D]
  param W_i, W_f, W_o, W_c : real[H, D]
  param U_i, U_f, U_o, U_c : real[H, H]
  param b_i, b_f, b_o, b_c : real[H]

  i[t] = sigmoid(W_i @ x[t] + U_i @ h[t-1] + b_i)
  f[t] = sigmoid(W_f @ x[t] + U_f @ h[t-1] + b_f)
  o[t] = sigmoid(W_o @ x[t] + U_o @ h[t-1] + b_o)
  c[t] = f[t] * c[t-1] + i[t] * tanh(W_c @ x[t] + U_c @ h[t-1] + b_c)
  h[t] = o[t] * tanh(c[t])

  logits = h[T-1] >> linear(classes) as head
  output logits
"""

HMM = """\
tilth: 1
name: NAME
title: Hidden Markov model with Gaussian observations
options: {K: 3, D: 2}
model: |
  input y : f32[T, D]
  param pi : simplex[K]
  param A : simplex[K, K]
  param mu : real[K, D]
  param sigma : positive[K, D]
  z[0] ~ categorical(pi)
  z[t] ~ categorical(A[z[t-1]]) for t in 1..T
  y[t] ~ normal(mu[z[t]], sigma[z[t]]) for t in 0..T
"""

CRF = """\
tilth: 1
name: NAME
title: Linear-chain conditional random field for labelling sequences
options: {D: 8, L: 5}
model: |
  input x : f32[T, D]
  input label : i32[T]
  param A : real[L, L]
  unary = x >> linear(L) as emit
  y[t] ~ labels(L) for t in 0..T
  factor unary[t, y[t]] for t in 0..T
  factor A[y[t-1], y[t]] for t in 1..T
  loss = -logp(y = label)
  output map(y), marginals(y)
"""

MDP = """\
tilth: 1
name: NAME
title: A slippery walk over a grid to a goal
options: {rows: 4, cols: 4, goal: [3, 3]}
model: |
  const gamma = 0.95
  index s : grid(rows, cols)
  index a : {up, right, down, left}
  step = [[-1, 0], [0, 1], [1, 0], [0, -1]]
  def move(s, a) = clamp(s + step[a])
  s' ~ choice(0.8: move(s, a), 0.1: move(s, (a + 3) % 4), 0.1: move(s, (a + 1) % 4))
  R[s, a] = if s == goal then 0 else -1
  fix {
    Q[s, a] = R[s, a] + gamma * E{s'} V[s']
    V[s] = if s == goal then 0 else max{a} Q[s, a]
  }
  output V, policy = argmax{a} Q[s, a]
"""

STARTERS = {"net": NET, "recurrent": RECURRENT, "hmm": HMM, "crf": CRF, "mdp": MDP}
