// Several decode steps of the GPT for ROWS sentences. All blocks stay resident and exchange what they computed as
// marked words (decode_exchange.cu); every block knows every row's state, and computes it alike.
//
// A step: draw tokens -> [QKV -> attention in SPLITS parts -> output projection -> LN -> W1, ReLU -> W2 -> LN] x LAYERS
// -> logits. The units of attention (a row, a head and a split) are dealt to the blocks, and in a block to TEAMS of its
// warps. Attention takes position p of a row to the split p % SPLITS, always the same thread's, which also writes the
// new key and value there: no other block reads what is written in this launch.

extern __shared__ float4 memory[];
constexpr int AHEAD = 2;  // keys and values that a thread asks for before the query is there
constexpr int TEAM_WARPS = WARPS / TEAMS, TEAM = 32 * TEAM_WARPS;
constexpr int LANES = HEAD / 8, PLACES = 32 / LANES * TEAM_WARPS;  // lanes of a position, positions of a pass
constexpr int PART_WORDS = SPLITS == 1 ? HEAD : HEAD + 2;
constexpr int QKV = 0, MIXED = QKV + ROWS * 3 * WIDTH, ATTENDED = MIXED + ROWS * HEADS * SPLITS * PART_WORDS;
constexpr int HIDDEN = ATTENDED + ROWS * WIDTH, OUT = HIDDEN + ROWS * INNER, LAYER = OUT + ROWS * WIDTH;
enum { LENGTH, TEXT, GAP, ROOM, POSITION, STEP, ACTIVE, NOISE_ROW, TOP_K, FACTS };
enum { TOP_P, TEMPERATURE, PENALTY, SETTINGS };

Word* const xs = (Word*)memory;                        // ROWS vectors: the layer's input
Word* const hs = xs + ROWS * STRIDE;                   // with SPLITS, ROWS vectors: attention's output
float* const sums = (float*)(hs + (SPLITS > 1) * ROWS * STRIDE);
float* const other_sums = sums + SUMS;                 // products take turns with these
float* const shared = other_sums + SUMS;               // attention, normalisation: SCRATCH
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

if (thread < ROWS * FACTS) facts[thread / FACTS][thread % FACTS] = rows_now[thread];
if (thread == 0) {
  SET_POINTERS
}
for (int i = thread; i < ROWS * HELD; i += THREADS) known[i / HELD][i % HELD] = seen[i];
__syncthreads();

// a product's weights come to shared memory while the two before it are made
typedef Product<QkvMatrix, 3 * WIDTH, WIDTH> Qkv;
typedef Product<OutMatrix, WIDTH, WIDTH> Out;
typedef Product<FirstMatrix, INNER, WIDTH> First;
typedef Product<SecondMatrix, WIDTH, INNER> Second;
typedef Product<Plain<float, WIDTH>, VOCABULARY, WIDTH> Predict;
float4* const stock = (float4*)(shared + SCRATCH);
Qkv qkv(stock);
Out out(stock + Qkv::STOCKED);
First first(stock + Qkv::STOCKED + Out::STOCKED);
Second second(stock + Qkv::STOCKED + Out::STOCKED + First::STOCKED);
Predict predict(stock + Qkv::STOCKED + Out::STOCKED + First::STOCKED + Second::STOCKED);
static_assert(Qkv::STOCKED + Out::STOCKED + First::STOCKED + Second::STOCKED + Predict::STOCKED <= STOCK, "room");
const Plain<float, WIDTH> last = {head};
const float* const unbiased = nullptr;
qkv.prefetch(QKV_MATRIX.layer(0, 3 * WIDTH), b_qkv);
out.prefetch(OUT_MATRIX.layer(0, WIDTH), b_out);

for (int turn = 0; turn < steps; turn++) {
  // 1. draw
  for (int row = warp; row < ROWS; row += WARPS) {
    if (!facts[row][ACTIVE]) continue;
    float v[HELD];
    if (turn == 0) {
#pragma unroll
      for (int j = 0; j < HELD; j++) v[j] = lane + 32 * j < VOCABULARY ? logits[row * VOCABULARY + lane + 32 * j] : 0;
    } else {
      constexpr int TOGETHER = 8;
#pragma unroll
      for (int k = 0; k < HELD; k += TOGETHER) {
        float got[TOGETHER];
        unsigned wanted = 0;
#pragma unroll
        for (int j = 0; j < TOGETHER; j++)
          if (lane + 32 * (k + j) < VOCABULARY) wanted |= 1u << j;
        fetch<TOGETHER, 1>(got, mark_of(turn - 1), verdicts + row * VOCABULARY + lane, wanted,
                           [&](int j) { return 32 * (k + j); });
#pragma unroll
        for (int j = 0; j < TOGETHER; j++)
          if (k + j < HELD) v[k + j] = got[j];
      }
    }
    bool ends;
    const float* noise_now = noises[row] + size_t(facts[row][NOISE_ROW] + turn) * VOCABULARY;
    const float* const of_row = settings + row * SETTINGS;
    const Draw how = {facts[row][TOP_K], of_row[TOP_P], of_row[TEMPERATURE], of_row[PENALTY]};
    const int token = draw(v, known[row], noise_now, facts[row][STEP] + turn, how, ends);
    if (lane == 0) {
      tokens_now[row] = token;
      known[row][token / 32] |= 1u << (token % 32);
      facts[row][ACTIVE] = !ends;
      // 0 says that a step was not made, as when the row had ended before
      if (first_block) tokens[row * steps + turn] = ends ? -1 : token + 1;
    }
  }
  __syncthreads();
  const unsigned active = __ballot_sync(~0u, lane < ROWS && facts[lane % ROWS][ACTIVE]);
  if (!active) break;

  // 2. embed
  for (int i = thread; i < ROWS * WIDTH; i += THREADS) {
    const int r = i / WIDTH, e = i % WIDTH;
    xs[r * STRIDE + e] = packed(
        active >> r & 1 ? to_float(embedding[size_t(tokens_now[r]) * WIDTH + e]) +
                to_float(positions[size_t(facts[r][POSITION] + turn) * WIDTH + e])
                        : 0.f);
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
                shift2 + (l - 1) * WIDTH, xs, shared);
    }
    qkv.run(QKV_MATRIX.layer(l, 3 * WIDTH), b_qkv + l * 3 * WIDTH, Near{xs}, sums, [&](int row, int r, float sum) {
      put(here + QKV + r * 3 * WIDTH + row, row < WIDTH ? sum * SCALE : sum, mark);
    });
    first.prefetch(FIRST_MATRIX.layer(l, INNER), b_first + l * INNER);

    // 4. attention
    const int team = warp / TEAM_WARPS, member = thread % TEAM;
    float* const mine = shared + team * TEAM_SCRATCH;
    for (int unit = blockIdx.x + team * BLOCKS; unit < ROWS * HEADS * SPLITS; unit += TEAMS * BLOCKS) {
      const int r = unit / (HEADS * SPLITS), h = unit / SPLITS % HEADS, split = unit % SPLITS;
      if (!(active >> r & 1)) continue;
      const int now = facts[r][LENGTH] + turn, room = facts[r][ROOM];
      Cached* const keys = caches[r] + (size_t(l) * 2 * HEADS + h) * room * HEAD;
      Cached* const values = keys + size_t(HEADS) * room * HEAD;
      const int at = lane % LANES * 8;
      auto slot = [&](int p) { return p < facts[r][TEXT] ? p : p + facts[r][GAP]; };
      Eight<Cached> key[AHEAD], value[AHEAD];
      auto ask = [&](int n, int p) {
        if (p < now) {
          key[n].load(keys + size_t(slot(p)) * HEAD + at);
          value[n].load(values + size_t(slot(p)) * HEAD + at);
        }
      };
      const int start = (member / LANES) * SPLITS + split;
#pragma unroll
      for (int n = 0; n < AHEAD; n++) ask(n, start + n * PLACES * SPLITS);
      // a unit before this one may still be read
      wait_for_team<TEAM>(team);
      for (int i = member; i < 3 * HEAD; i += TEAM) {
        float got[1];
        const Word* const from = here + QKV + (r * 3 + i / HEAD) * WIDTH + h * HEAD + i % HEAD;
        fetch<1, 1>(got, mark, from, 1, [](int) { return 0; });
        mine[i] = got[0];
      }
      wait_for_team<TEAM>(team);
      float q[8], mixed[8], greatest = NONE, total = 0;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        q[i] = mine[at + i];
        mixed[i] = 0;
      }
      for (int first = start; first <= now; first += AHEAD * PLACES * SPLITS) {
#pragma unroll
        for (int n = 0; n < AHEAD; n++) {
          const int p = first + n * PLACES * SPLITS;
          if (p > now) break;
          if (p == now) {
            key[n].pack(mine + HEAD + at);
            value[n].pack(mine + 2 * HEAD + at);
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
      float* const parts = mine + up(3 * HEAD, 32);  // (TEAM_WARPS, HEAD + 2)
      if (lane < LANES) {
        float* const part = parts + warp % TEAM_WARPS * (HEAD + 2);
#pragma unroll
        for (int i = 0; i < 8; i++) part[at + i] = mixed[i];
        if (lane == 0) {
          part[HEAD] = greatest;
          part[HEAD + 1] = total;
        }
      }
      wait_for_team<TEAM>(team);
      for (int d = member; d < HEAD; d += TEAM) {
        float most = NONE, sum = 0, mix = 0;
#pragma unroll
        for (int w = 0; w < TEAM_WARPS; w++) most = fmaxf(most, parts[w * (HEAD + 2) + HEAD]);
#pragma unroll
        for (int w = 0; w < TEAM_WARPS; w++) {
          const float e = __expf(parts[w * (HEAD + 2) + HEAD] - most);
          sum += e * parts[w * (HEAD + 2) + HEAD + 1];
          mix += e * parts[w * (HEAD + 2) + d];
        }
        if (SPLITS == 1) {
          put_word(here + MIXED + place(h * HEAD + d, r), packed(mix / sum), mark);
        } else {
          Word* const part = here + MIXED + ((r * HEADS + h) * SPLITS + split) * PART_WORDS;
          put(part + d, mix, mark);
          if (d == 0) {
            put(part + HEAD, most, mark);
            put(part + HEAD + 1, sum, mark);
          }
        }
      }
    }

    // 5. output projection; x joins as the residual
    auto project = [&](const auto& mixed) {
      out.run(OUT_MATRIX.layer(l, WIDTH), b_out + l * WIDTH, mixed, other_sums, [&](int row, int r, float sum) {
        put(here + ATTENDED + place(row, r), sum + unpacked(xs[r * STRIDE + row]), mark);
      });
    };
    if constexpr (SPLITS == 1) {
      project(Far{here + MIXED, mark, active});
    } else {
      for (int i = thread; i < ROWS * WIDTH; i += THREADS) {
        const int r = i / WIDTH, e = i % WIDTH;
        float result = 0;
        if (active >> r & 1) {
          const Word* const of_head = here + MIXED + (r * HEADS + e / HEAD) * SPLITS * PART_WORDS;
          float got[3 * SPLITS];
          fetch<3 * SPLITS, 1>(got, mark, of_head, bits(3 * SPLITS), [&](int n) {
            return n / 3 * PART_WORDS + (n % 3 == 0 ? e % HEAD : HEAD + n % 3 - 1);
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
        hs[r * STRIDE + e] = packed(result);
      }
      __syncthreads();
      project(Near{hs});
    }

    // 6. feed-forward
    second.prefetch(SECOND_MATRIX.layer(l, WIDTH), b_second + l * WIDTH);
    normalise(here + ATTENDED, mark, norm1 + l * WIDTH, shift1 + l * WIDTH, xs, shared);
    first.run(FIRST_MATRIX.layer(l, INNER), b_first + l * INNER, Near{xs}, sums, [&](int row, int r, float sum) {
      put_word(here + HIDDEN + place(row, r), packed(fmaxf(sum, 0.f)), mark);
    });
    const bool more = l + 1 < LAYERS;
    if (more) qkv.prefetch(QKV_MATRIX.layer(l + 1, 3 * WIDTH), b_qkv + (l + 1) * 3 * WIDTH);
    else predict.prefetch(last, unbiased);
    second.run(SECOND_MATRIX.layer(l, WIDTH), b_second + l * WIDTH, Far{here + HIDDEN, mark, bits(ROWS)}, other_sums,
               [&](int row, int r, float sum) {
                 put(here + OUT + place(row, r), sum + unpacked(xs[r * STRIDE + row]), mark);
               });
    if (more) out.prefetch(OUT_MATRIX.layer(l + 1, WIDTH), b_out + (l + 1) * WIDTH);
    else qkv.prefetch(QKV_MATRIX.layer(0, 3 * WIDTH), b_qkv);
  }

  // 7. logits, float32 whatever the rest is stored in
  const unsigned newest = (turn + 1) * LAYERS - 1;
  normalise(board + (newest & 1) * LAYER + OUT, mark_of(newest / 2), norm2 + (LAYERS - 1) * WIDTH,
            shift2 + (LAYERS - 1) * WIDTH, xs, shared);
  predict.run(last, unbiased, Near{xs}, sums, [&](int row, int r, float sum) {
    put(verdicts + r * VOCABULARY + row, sum, mark_of(turn));
    next_logits[r * VOCABULARY + row] = sum;
  });
  out.prefetch(OUT_MATRIX.layer(0, WIDTH), b_out);
  __syncthreads();
}

if (first_block)
  for (int i = thread; i < ROWS * HELD; i += THREADS) next_seen[i] = known[i / HELD][i % HELD];
