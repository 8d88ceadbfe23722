// Several decode steps of the GPT for ROWS sentences. All blocks stay resident and exchange what they computed as
// marked words (decode_parts.cu); every block knows every row's state, and computes it alike.
//
// A step: draw tokens -> [QKV -> attention in SPLITS parts -> output projection -> LN -> W1, ReLU -> W2 -> LN] x LAYERS
// -> logits. Attention takes position p of a row to the split p % SPLITS, always the same thread's, which also writes
// the new key and value there: no other block reads what is written in this launch.

extern __shared__ float4 memory[];
constexpr int AHEAD = 2;  // keys and values that a thread asks for before the query is there
constexpr int WIDE = up(WIDTH, 256), INNER_WIDE = up(INNER, 256);
constexpr int LANES = HEAD / 8, PLACES = 32 / LANES * WARPS;  // lanes of a position, positions of a pass
constexpr int PART_WORDS = SPLITS == 1 ? HEAD : HEAD + 2;
constexpr int QKV = 0, MIXED = QKV + ROWS * 3 * WIDTH, ATTENDED = MIXED + ROWS * HEADS * SPLITS * PART_WORDS;
constexpr int HIDDEN = ATTENDED + ROWS * WIDTH, OUT = HIDDEN + ROWS * INNER, LAYER = OUT + ROWS * WIDTH;
enum { LENGTH, TEXT, GAP, ROOM, POSITION, STEP, ACTIVE, NOISE_ROW, FACTS };

float* const xs = (float*)memory;                 // (ROWS, WIDE): the layer's input
float* const hs = xs + ROWS * WIDE;               // (ROWS, INNER_WIDE): attention's output, or the inner activations
float* const shared = hs + ROWS * INNER_WIDE;     // SCRATCH
__shared__ int facts[ROWS][FACTS];
__shared__ int tokens_now[ROWS];
__shared__ unsigned known[ROWS][HELD];
__shared__ Cached* caches[ROWS];
__shared__ const float* noises[ROWS];

const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
const bool first_block = blockIdx.x == 0;
Word* const board = (Word*)words;
Word* const verdicts = board + 2 * LAYER;
const int steps = rows_now[ROWS * FACTS];
const Draw how = {rows_now[ROWS * FACTS + 1], settings[0], settings[1], settings[2]};

if (thread < ROWS * FACTS) facts[thread / FACTS][thread % FACTS] = rows_now[thread];
if (thread == 0) {
  SET_POINTERS
}
for (int i = thread; i < ROWS * HELD; i += THREADS) known[i / HELD][i % HELD] = seen[i];
__syncthreads();

Product<QkvMatrix, 3 * WIDTH, WIDTH> qkv;
qkv.prefetch(QKV_MATRIX.layer(0, 3 * WIDTH));

for (int turn = 0; turn < steps; turn++) {
  // 1. draw
  if (warp < ROWS && facts[warp][ACTIVE]) {
    float v[HELD];
    if (turn == 0) {
#pragma unroll
      for (int j = 0; j < HELD; j++) v[j] = lane + 32 * j < VOCABULARY ? logits[warp * VOCABULARY + lane + 32 * j] : 0;
    } else {
      constexpr int TOGETHER = 8;
#pragma unroll
      for (int k = 0; k < HELD; k += TOGETHER) {
        float got[TOGETHER];
        fetch<TOGETHER, 1>(got, mark_of(turn - 1), [&](int j) {
          return verdicts + warp * VOCABULARY + min(lane + 32 * (k + j), VOCABULARY - 1);
        });
#pragma unroll
        for (int j = 0; j < TOGETHER; j++)
          if (k + j < HELD) v[k + j] = got[j];
      }
    }
    bool ends;
    const float* noise_now = noises[warp] + size_t(facts[warp][NOISE_ROW] + turn) * VOCABULARY;
    const int token = draw(v, known[warp], noise_now, facts[warp][STEP] + turn, how, ends);
    if (lane == 0) {
      tokens_now[warp] = token;
      known[warp][token / 32] |= 1u << (token % 32);
      facts[warp][ACTIVE] = !ends;
      // 0 says that a step was not made, as when the row had ended before
      if (first_block) tokens[warp * steps + turn] = ends ? -1 : token + 1;
    }
  }
  __syncthreads();
  bool any = false;
#pragma unroll
  for (int r = 0; r < ROWS; r++) any |= facts[r][ACTIVE] != 0;
  if (!any) break;

  // 2. embed
  for (int i = thread; i < ROWS * WIDTH; i += THREADS) {
    const int r = i / WIDTH, e = i % WIDTH;
    xs[r * WIDE + place(e)] = facts[r][ACTIVE]
        ? to_float(embedding[size_t(tokens_now[r]) * WIDTH + e]) +
            to_float(positions[size_t(facts[r][POSITION] + turn) * WIDTH + e])
        : 0.f;
  }
  __syncthreads();

  for (int l = 0; l < LAYERS; l++) {
    // two boards take turns: who writes on one has heard from all blocks that they read what it held
    const unsigned count = turn * LAYERS + l;
    Word* const here = board + (count & 1) * LAYER;
    const Word mark = mark_of(count / 2);
    // 3. queries, keys, values
    if (l) {
      normalise(board + ((count - 1) & 1) * LAYER + OUT, mark_of((count - 1) / 2), norm2 + (l - 1) * WIDTH,
                shift2 + (l - 1) * WIDTH, xs, WIDE, shared);
    }
    qkv.run(QKV_MATRIX.layer(l, 3 * WIDTH), xs, WIDE, shared, [&](int row, int r, float sum) {
      sum += to_float(b_qkv[l * 3 * WIDTH + row]);
      put(here + QKV + r * 3 * WIDTH + row, row < WIDTH ? sum * SCALE : sum, mark);
    });
    Product<OutMatrix, WIDTH, WIDTH> out;
    out.prefetch(OUT_MATRIX.layer(l, WIDTH));

    // 4. attention
    for (int unit = blockIdx.x; unit < ROWS * HEADS * SPLITS; unit += BLOCKS) {
      const int r = unit / (HEADS * SPLITS), h = unit / SPLITS % HEADS, split = unit % SPLITS;
      if (!facts[r][ACTIVE]) continue;
      const int now = facts[r][LENGTH] + turn, room = facts[r][ROOM];
      Cached* const keys = caches[r] + (size_t(l) * 2 * HEADS + h) * room * HEAD;
      Cached* const values = keys + size_t(HEADS) * room * HEAD;
      const int at = (thread % 32) % LANES * 8;
      auto slot = [&](int p) { return p < facts[r][TEXT] ? p : p + facts[r][GAP]; };
      Eight<Cached> key[AHEAD], value[AHEAD];
      auto ask = [&](int n, int p) {
        if (p < now) {
          key[n].load(keys + size_t(slot(p)) * HEAD + at);
          value[n].load(values + size_t(slot(p)) * HEAD + at);
        }
      };
      const int start = (thread / LANES) * SPLITS + split;
#pragma unroll
      for (int n = 0; n < AHEAD; n++) ask(n, start + n * PLACES * SPLITS);
      // a unit before this one may still be read
      __syncthreads();
      if (thread < 3 * HEAD) {
        float got[1];
        const int part = thread / HEAD, d = thread % HEAD;
        fetch<1, 1>(got, mark, [&](int) { return here + QKV + r * 3 * WIDTH + part * WIDTH + h * HEAD + d; });
        shared[thread] = got[0];
      }
      __syncthreads();
      float q[8], mixed[8], greatest = NONE, total = 0;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        q[i] = shared[at + i];
        mixed[i] = 0;
      }
      for (int first = start; first <= now; first += AHEAD * PLACES * SPLITS) {
#pragma unroll
        for (int n = 0; n < AHEAD; n++) {
          const int p = first + n * PLACES * SPLITS;
          if (p > now) break;
          if (p == now) {
            key[n].pack(shared + HEAD + at);
            value[n].pack(shared + 2 * HEAD + at);
            key[n].store(keys + size_t(slot(p)) * HEAD + at);
            value[n].store(values + size_t(slot(p)) * HEAD + at);
          }
          float k[8], v[8], score = 0;
          key[n].unpack(k);
          value[n].unpack(v);
          ask(n, p + AHEAD * PLACES * SPLITS);
#pragma unroll
          for (int i = 0; i < 8; i++) score += q[i] * k[i];
          // the lanes of a position go through this together
          const unsigned group = LANES == 32 ? ~0u : ((1u << LANES) - 1) << (lane / LANES * LANES);
#pragma unroll
          for (int o = LANES / 2; o; o >>= 1) score += __shfl_xor_sync(group, score, o);
          const float higher = fmaxf(greatest, score), before = __expf(greatest - higher), e = __expf(score - higher);
          greatest = higher;
          total = total * before + e;
#pragma unroll
          for (int i = 0; i < 8; i++) mixed[i] = mixed[i] * before + e * v[i];
        }
      }
      // join the positions of a warp, then the warps
#pragma unroll
      for (int o = LANES; o < 32; o <<= 1) {
        const float other = __shfl_xor_sync(~0u, greatest, o), its = __shfl_xor_sync(~0u, total, o);
        const float higher = fmaxf(greatest, other), a = __expf(greatest - higher), b = __expf(other - higher);
        greatest = higher;
        total = total * a + its * b;
#pragma unroll
        for (int i = 0; i < 8; i++) mixed[i] = mixed[i] * a + __shfl_xor_sync(~0u, mixed[i], o) * b;
      }
      float* const parts = shared + up(3 * HEAD, 32);  // (WARPS, HEAD + 2)
      if (lane < LANES) {
#pragma unroll
        for (int i = 0; i < 8; i++) parts[warp * (HEAD + 2) + at + i] = mixed[i];
        if (lane == 0) {
          parts[warp * (HEAD + 2) + HEAD] = greatest;
          parts[warp * (HEAD + 2) + HEAD + 1] = total;
        }
      }
      __syncthreads();
      if (thread < HEAD) {
        float most = NONE, sum = 0, mix = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) most = fmaxf(most, parts[w * (HEAD + 2) + HEAD]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
          const float e = __expf(parts[w * (HEAD + 2) + HEAD] - most);
          sum += e * parts[w * (HEAD + 2) + HEAD + 1];
          mix += e * parts[w * (HEAD + 2) + thread];
        }
        Word* const mine = here + MIXED + ((r * HEADS + h) * SPLITS + split) * PART_WORDS;
        if (SPLITS == 1) {
          put(mine + thread, mix / sum, mark);
        } else {
          put(mine + thread, mix, mark);
          if (thread == 0) {
            put(mine + HEAD, most, mark);
            put(mine + HEAD + 1, sum, mark);
          }
        }
      }
    }

    // 5. output projection; x joins as the residual
    __syncthreads();
    if constexpr (SPLITS == 1) {
      bool all = true;
#pragma unroll
      for (int r = 0; r < ROWS; r++) all &= facts[r][ACTIVE] != 0;
      if (all) {
        gather<WIDTH>(here + MIXED, mark, hs, WIDE);
      } else {
        for (int i = thread; i < ROWS * WIDTH; i += THREADS) {
          float got[1] = {0};
          if (facts[i / WIDTH][ACTIVE]) fetch<1, 1>(got, mark, [&](int) { return here + MIXED + i; });
          hs[i / WIDTH * WIDE + place(i % WIDTH)] = got[0];
        }
      }
    } else {
      for (int i = thread; i < ROWS * WIDTH; i += THREADS) {
        const int r = i / WIDTH, e = i % WIDTH;
        float result = 0;
        if (facts[r][ACTIVE]) {
          const Word* const of_head = here + MIXED + (r * HEADS + e / HEAD) * SPLITS * PART_WORDS;
          float got[3 * SPLITS];
          fetch<3 * SPLITS, 1>(got, mark, [&](int n) {
            return of_head + n / 3 * PART_WORDS + (n % 3 == 0 ? e % HEAD : HEAD + n % 3 - 1);
          });
          float most = NONE, sum = 0;
#pragma unroll
          for (int s = 0; s < SPLITS; s++) most = fmaxf(most, got[3 * s + 1]);
#pragma unroll
          for (int s = 0; s < SPLITS; s++) {
            const float weight = __expf(got[3 * s + 1] - most);
            result += weight * got[3 * s];
            sum += weight * got[3 * s + 2];
          }
          result /= sum;
        }
        hs[r * WIDE + place(e)] = result;
      }
    }
    __syncthreads();
    out.run(OUT_MATRIX.layer(l, WIDTH), hs, WIDE, shared, [&](int row, int r, float sum) {
      put(here + ATTENDED + r * WIDTH + row, sum + to_float(b_out[l * WIDTH + row]) + xs[r * WIDE + place(row)], mark);
    });

    // 6. feed-forward
    Product<FirstMatrix, INNER, WIDTH> first;
    first.prefetch(FIRST_MATRIX.layer(l, INNER));
    __syncthreads();
    normalise(here + ATTENDED, mark, norm1 + l * WIDTH, shift1 + l * WIDTH, xs, WIDE, shared);
    first.run(FIRST_MATRIX.layer(l, INNER), xs, WIDE, shared, [&](int row, int r, float sum) {
      put(here + HIDDEN + r * INNER + row, fmaxf(sum + to_float(b_first[l * INNER + row]), 0.f), mark);
    });
    Product<SecondMatrix, WIDTH, INNER> second;
    second.prefetch(SECOND_MATRIX.layer(l, WIDTH));
    gather<INNER>(here + HIDDEN, mark, hs, INNER_WIDE);
    __syncthreads();
    second.run(SECOND_MATRIX.layer(l, WIDTH), hs, INNER_WIDE, shared, [&](int row, int r, float sum) {
      put(here + OUT + r * WIDTH + row, sum + to_float(b_second[l * WIDTH + row]) + xs[r * WIDE + place(row)], mark);
    });
    if (l + 1 < LAYERS) qkv.prefetch(QKV_MATRIX.layer(l + 1, 3 * WIDTH));
    __syncthreads();
  }

  // 7. logits, float32 whatever the rest is stored in
  Product<Plain<float, WIDTH>, VOCABULARY, WIDTH> predict;
  const Plain<float, WIDTH> last = {head};
  predict.prefetch(last);
  const unsigned newest = (turn + 1) * LAYERS - 1;
  normalise(board + (newest & 1) * LAYER + OUT, mark_of(newest / 2), norm2 + (LAYERS - 1) * WIDTH,
            shift2 + (LAYERS - 1) * WIDTH, xs, WIDE, shared);
  predict.run(last, xs, WIDE, shared, [&](int row, int r, float sum) {
    put(verdicts + r * VOCABULARY + row, sum, mark_of(turn));
    next_logits[r * VOCABULARY + row] = sum;
  });
  qkv.prefetch(QKV_MATRIX.layer(0, 3 * WIDTH));
  __syncthreads();
}

if (first_block)
  for (int i = thread; i < ROWS * HELD; i += THREADS) next_seen[i] = known[i / HELD][i % HELD];
