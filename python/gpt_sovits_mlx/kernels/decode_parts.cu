// Building blocks of the decode kernel: words that carry their own arrival, weights in any storage, sampling in a warp.
//
// Blocks exchange float32 values whose lowest bit is a mark that changes from one use of a place to the next. A reader
// polls the very words that it needs until they bear the mark of this use, so that no barrier, fence or second round
// trip is needed: a phase costs one trip through L2. The bit costs 1e-7 of a value.

typedef unsigned Word;
constexpr int WARPS = THREADS / 32;
constexpr float NONE = -1e30f;
#define NEVER __int_as_float(0xff800000)  // minus infinity

// Places hold 0 at first.
__device__ __forceinline__ Word mark_of(unsigned use) { return ~use & 1; }

__device__ __forceinline__ void put(Word* at, float value, Word mark) {
  const Word word = (__float_as_uint(value) & ~1u) | mark;
  asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(at), "r"(word) : "memory");
}

template <int N> __device__ __forceinline__ void look(const Word* at, Word* words);
template <> __device__ __forceinline__ void look<1>(const Word* at, Word* w) {
  asm volatile("ld.relaxed.gpu.global.b32 %0, [%1];" : "=r"(w[0]) : "l"(at) : "memory");
}
template <> __device__ __forceinline__ void look<2>(const Word* at, Word* w) {
  asm volatile("ld.relaxed.gpu.global.v2.b32 {%0, %1}, [%2];" : "=r"(w[0]), "=r"(w[1]) : "l"(at) : "memory");
}
template <> __device__ __forceinline__ void look<4>(const Word* at, Word* w) {
  asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
               : "l"(at)
               : "memory");
}

// N groups of SIZE neighbouring words, at `at(i)`, all of them under way before the first is waited for.
template <int N, int SIZE, class At>
__device__ __forceinline__ void fetch(float (&values)[N * SIZE], Word mark, At at) {
  Word words[N * SIZE];
  bool all;
  do {
    all = true;
#pragma unroll
    for (int i = 0; i < N; i++) look<SIZE>(at(i), words + i * SIZE);
#pragma unroll
    for (int i = 0; i < N * SIZE; i++) all &= (words[i] & 1) == mark;
  } while (!all);
#pragma unroll
  for (int i = 0; i < N * SIZE; i++) values[i] = __uint_as_float(words[i]);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int o = 16; o; o >>= 1) x += __shfl_xor_sync(~0u, x, o);
  return x;
}

// The sums over a warp of N values, a power of two: lanes of the g-th of N equal groups get that of v[g].
template <int N> __device__ __forceinline__ float group_sums(float (&v)[N]) {
  const int lane = threadIdx.x & 31;
  int o = 16;
#pragma unroll
  for (int n = N / 2; n; n /= 2, o /= 2) {
    const bool upper = lane & o;
#pragma unroll
    for (int i = 0; i < n; i++) {
      const float kept = upper ? v[i + n] : v[i], given = upper ? v[i] : v[i + n];
      v[i] = kept + __shfl_xor_sync(~0u, given, o);
    }
  }
#pragma unroll
  for (; o; o /= 2) v[0] += __shfl_xor_sync(~0u, v[0], o);
  return v[0];
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16(x); }

// Eight neighbouring numbers of a row, as they are stored.
template <class T> struct Eight;

template <> struct Eight<float> {
  uint4 low, high;
  __device__ __forceinline__ void load(const float* p) {
    low = *(const uint4*)p;
    high = *(const uint4*)(p + 4);
  }
  __device__ __forceinline__ void store(float* p) const {
    *(uint4*)p = low;
    *(uint4*)(p + 4) = high;
  }
  __device__ __forceinline__ void unpack(float* f) const {
    const unsigned w[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; i++) f[i] = __uint_as_float(w[i]);
  }
  __device__ __forceinline__ void pack(const float* f) {
    low = make_uint4(__float_as_uint(f[0]), __float_as_uint(f[1]), __float_as_uint(f[2]), __float_as_uint(f[3]));
    high = make_uint4(__float_as_uint(f[4]), __float_as_uint(f[5]), __float_as_uint(f[6]), __float_as_uint(f[7]));
  }
};

template <class T> struct Eight16 {
  uint4 raw;
  __device__ __forceinline__ void load(const T* p) { raw = *(const uint4*)p; }
  __device__ __forceinline__ void store(T* p) const { *(uint4*)p = raw; }
  __device__ __forceinline__ void unpack(float* f) const {
    const T* x = (const T*)&raw;
#pragma unroll
    for (int i = 0; i < 8; i++) f[i] = to_float(x[i]);
  }
  __device__ __forceinline__ void pack(const float* f) {
    T* x = (T*)&raw;
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = from_float<T>(f[i]);
  }
};
template <> struct Eight<__half> : Eight16<__half> {};
template <> struct Eight<__nv_bfloat16> : Eight16<__nv_bfloat16> {};

// A matrix (rows, K) of plain numbers.
template <class T, int K> struct Plain {
  const T* numbers;
  typedef Eight<T> Chunk;
  __device__ __forceinline__ Plain layer(int l, int rows) const { return {numbers + size_t(l) * rows * K}; }
  __device__ __forceinline__ void load(Chunk& chunk, int row, int column) const {
    chunk.load(numbers + size_t(row) * K + column);
  }
};

// A matrix (rows, K) in groups of GROUP numbers of BITS bits, each standing for scale * q + bias (MLX's affine form).
template <class S, int K, int BITS, int GROUP> struct Grouped {
  const unsigned* packed;
  const S* scales;
  const S* biases;
  struct Chunk {
    unsigned words[BITS / 4];
    S scale, bias;
    __device__ __forceinline__ void unpack(float* f) const {
      const float s = to_float(scale), b = to_float(bias);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const int at = i * BITS;
        f[i] = s * float((words[at / 32] >> (at % 32)) & ((1u << BITS) - 1)) + b;
      }
    }
  };
  __device__ __forceinline__ Grouped layer(int l, int rows) const {
    const size_t at = size_t(l) * rows;
    return {packed + at * (K * BITS / 32), scales + at * (K / GROUP), biases + at * (K / GROUP)};
  }
  __device__ __forceinline__ void load(Chunk& chunk, int row, int column) const {
    const unsigned* p = packed + (size_t(row) * K + column) * BITS / 32;
    if constexpr (BITS == 8) {
      const uint2 two = *(const uint2*)p;
      chunk.words[0] = two.x;
      chunk.words[1] = two.y;
    } else {
      chunk.words[0] = *p;
    }
    const size_t group = size_t(row) * (K / GROUP) + column / GROUP;
    chunk.scale = scales[group];
    chunk.bias = biases[group];
  }
};

constexpr int up(int n, int to) { return (n + to - 1) / to * to; }

// Where element e of a vector lies in shared memory: lanes that hold eight each read it without bank conflicts.
__device__ __forceinline__ int place(int e) {
  return (e & ~255) | ((e & 4) << 5) | ((e & 248) >> 1) | (e & 3);
}

// Product of a matrix (R, K) with ROWS vectors: its rows are dealt to blocks, then to warps, several to a row if they
// suffice. `prefetch` loads a warp's first piece, before the vectors are there.
template <class M, int R, int K> struct Product {
  static constexpr int PER_BLOCK = (R + BLOCKS - 1) / BLOCKS;
  static constexpr int share() {
    int n = 1;
    while (n * 2 * PER_BLOCK <= WARPS && K % (n * 16) == 0) n *= 2;
    return n;
  }
  static constexpr int SHARE = share();  // warps of a row
  static constexpr int PART = K / SHARE;
  static constexpr int CHUNKS = (PART + 255) / 256;
  static constexpr int UNITS = PER_BLOCK * SHARE;
  typename M::Chunk chunks[CHUNKS];

  __device__ __forceinline__ static bool row_of(int unit, int& row, int& first) {
    row = blockIdx.x * PER_BLOCK + unit / SHARE;
    first = unit % SHARE * PART + (threadIdx.x & 31) * 8;
    return unit < UNITS && row < R;
  }

  __device__ __forceinline__ static bool holds(int j) {
    return PART % 256 == 0 || (threadIdx.x & 31) * 8 + j * 256 < PART;
  }

  __device__ __forceinline__ void load(const M& matrix, int unit) {
    int row, first;
    if (!row_of(unit, row, first)) return;
#pragma unroll
    for (int j = 0; j < CHUNKS; j++)
      if (holds(j)) matrix.load(chunks[j], row, first + j * 256);
  }

  __device__ __forceinline__ void prefetch(const M& matrix) { load(matrix, threadIdx.x >> 5); }

  // `x`: ROWS vectors in shared memory, `stride` apart; `done(row, r, sum)` gets each result once.
  template <class Done>
  __device__ __forceinline__ void run(const M& matrix, const float* x, int stride, float* shared, Done done) {
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int unit = warp; unit < up(UNITS, WARPS); unit += WARPS) {
      if (unit != warp) load(matrix, unit);
      int row, first;
      const bool mine = row_of(unit, row, first);
      float sums[ROWS];
#pragma unroll
      for (int r = 0; r < ROWS; r++) sums[r] = 0;
      if (mine) {
#pragma unroll
        for (int j = 0; j < CHUNKS; j++) {
          if (holds(j)) {
            float w[8];
            chunks[j].unpack(w);
            const float* at = x + place(first + j * 256);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
              const float4 a = *(const float4*)(at + r * stride), b = *(const float4*)(at + r * stride + 128);
              sums[r] += w[0] * a.x + w[1] * a.y + w[2] * a.z + w[3] * a.w + w[4] * b.x + w[5] * b.y + w[6] * b.z +
                         w[7] * b.w;
            }
          }
        }
      }
      const float mine_of_row = group_sums(sums);
      const int group = lane / (32 / ROWS);
      const bool first_of_group = lane % (32 / ROWS) == 0;
      if constexpr (SHARE == 1) {
        if (mine && first_of_group) done(row, group, mine_of_row);
      } else {
        // all units of a block fit its warps here
        if (first_of_group) shared[warp * ROWS + group] = mine_of_row;
        __syncthreads();
        if (threadIdx.x < PER_BLOCK * ROWS) {
          const int local = threadIdx.x / ROWS, r = threadIdx.x % ROWS;
          float sum = 0;
#pragma unroll
          for (int s = 0; s < SHARE; s++) sum += shared[(local * SHARE + s) * ROWS + r];
          if (blockIdx.x * PER_BLOCK + local < R) done(blockIdx.x * PER_BLOCK + local, r, sum);
        }
      }
    }
  }
};

// Largest power of two of threads, up to a row's share of the block, that divides WIDTH.
constexpr int team() {
  int n = 1;
  while (n * 2 <= THREADS / ROWS && WIDTH % (n * 2) == 0) n *= 2;
  return n;
}
constexpr int TEAM = team(), EACH = WIDTH / TEAM;
constexpr int NEAR = EACH % 4 == 0 ? 4 : EACH % 2 == 0 ? 2 : 1;  // neighbours that a thread takes

// Layer normalisation of ROWS vectors that arrive as words; statistics of the warps are joined by Chan's formula.
template <class T>
__device__ __forceinline__ void normalise(
    const Word* words, Word mark, const T* gain, const T* shift, float* x, int stride, float* shared) {
  const int row = threadIdx.x / TEAM, at = threadIdx.x % TEAM, warp = threadIdx.x >> 5;
  auto element = [&](int i) { return (i / NEAR * TEAM + at) * NEAR + i % NEAR; };
  float v[EACH], g[EACH], h[EACH], mean = 0;
  const bool mine = row < ROWS;
  if (mine) {
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      g[i] = to_float(gain[element(i)]);
      h[i] = to_float(shift[element(i)]);
    }
    fetch<EACH / NEAR, NEAR>(v, mark, [&](int i) { return words + row * WIDTH + element(i * NEAR); });
#pragma unroll
    for (int i = 0; i < EACH; i++) mean += v[i];
    mean = warp_sum(mean) / (32 * EACH);
    float square = 0;
#pragma unroll
    for (int i = 0; i < EACH; i++) square += (v[i] - mean) * (v[i] - mean);
    square = warp_sum(square);
    if ((threadIdx.x & 31) == 0) {
      shared[2 * warp] = mean;
      shared[2 * warp + 1] = square;
    }
  }
  __syncthreads();
  if (mine) {
    const float* of_row = shared + 2 * (row * (TEAM / 32));
    float whole = 0, square = 0;
#pragma unroll
    for (int w = 0; w < TEAM / 32; w++) whole += of_row[2 * w];
    whole /= TEAM / 32;
#pragma unroll
    for (int w = 0; w < TEAM / 32; w++) {
      const float d = of_row[2 * w] - whole;
      square += of_row[2 * w + 1] + d * d * (32 * EACH);
    }
    const float scale = rsqrtf(square / WIDTH + 1e-5f);
#pragma unroll
    for (int i = 0; i < EACH; i++) x[row * stride + place(element(i))] = (v[i] - whole) * scale * g[i] + h[i];
  }
  __syncthreads();
}

// COUNT words in ROWS vectors of LONG each, to shared memory.
template <int LONG>
__device__ __forceinline__ void gather(const Word* words, Word mark, float* x, int stride) {
  constexpr int COUNT = ROWS * LONG / 4, PASS = COUNT <= THREADS ? 1 : COUNT <= 4 * THREADS ? 4 : 8;
  for (int i = threadIdx.x; i < COUNT; i += PASS * THREADS) {
    float got[4 * PASS];
    fetch<PASS, 4>(got, mark, [&](int n) { return words + 4 * min(i + n * THREADS, COUNT - 1); });
#pragma unroll
    for (int n = 0; n < PASS; n++) {
      const int which = i + n * THREADS;
      if (which < COUNT) {
        const int e = 4 * which;
        *(float4*)(x + e / LONG * stride + place(e % LONG)) =
            make_float4(got[4 * n], got[4 * n + 1], got[4 * n + 2], got[4 * n + 3]);
      }
    }
  }
}

// The order of floats as that of unsigned numbers.
__device__ __forceinline__ unsigned rank_of(float x) {
  const unsigned bits = __float_as_uint(x);
  return bits ^ (bits >> 31 ? ~0u : 0x80000000u);
}

__device__ __forceinline__ int first_largest(float value, int index, float& largest) {
#pragma unroll
  for (int o = 16; o; o >>= 1) {
    const float other = __shfl_xor_sync(~0u, value, o);
    const int its = __shfl_xor_sync(~0u, index, o);
    if (other > value || (other == value && its < index)) {
      value = other;
      index = its;
    }
  }
  largest = value;
  return index;
}

constexpr int HELD = (VOCABULARY + 31) / 32;  // logits of a lane: lane + 32 * j

struct Draw {
  int top_k;
  float top_p, temperature, penalty;
};

// One row's next token, drawn by a warp as `sampling.sample` does; true in `ends` where the row ends here.
__device__ __noinline__ int draw(
    float (&v)[HELD], const unsigned* seen, const float* noise, int step, const Draw& how, bool& ends) {
  const int lane = threadIdx.x & 31, end = VOCABULARY - 1;
#pragma unroll
  for (int j = 0; j < HELD; j++) {
    const int index = lane + 32 * j;
    if (index >= VOCABULARY || (index == end && step < MIN_TOKENS)) v[j] = NEVER;
    else if (how.penalty != 1 && (seen[j] >> lane & 1)) v[j] = v[j] < 0 ? v[j] * how.penalty : v[j] / how.penalty;
  }
  auto largest = [&](auto score, float& found) {
    float best = NEVER;
    int index = VOCABULARY;
#pragma unroll
    for (int j = 0; j < HELD; j++) {
      const float s = score(j);
      if (s > best) {
        best = s;
        index = lane + 32 * j;
      }
    }
    return first_largest(best, index, found);
  };
  float top;
  const int likeliest = largest([&](int j) { return v[j]; }, top);
  int token = likeliest;
  if (how.top_k > 1) {
    if (how.top_p < 1) {
      // the smallest threshold above which the probabilities sum to at most top_p
      float total = 0;
#pragma unroll
      for (int j = 0; j < HELD; j++) total += expf(v[j] - top);
      total = warp_sum(total);
      unsigned threshold = 0;
      for (int bit = 31; bit >= 0; bit--) {
        const unsigned tried = threshold | (1u << bit);
        float above = 0;
#pragma unroll
        for (int j = 0; j < HELD; j++) above += rank_of(v[j]) >= tried ? expf(v[j] - top) : 0.f;
        if (warp_sum(above) / total > how.top_p) threshold = tried;
      }
#pragma unroll
      for (int j = 0; j < HELD; j++)
        if (rank_of(v[j]) <= threshold && lane + 32 * j != likeliest) v[j] = NEVER;
    }
#pragma unroll
    for (int j = 0; j < HELD; j++) v[j] /= fmaxf(how.temperature, 1e-5f);
    if (how.top_k < VOCABULARY) {
      // the largest threshold that top_k of them reach
      unsigned threshold = 0;
      for (int bit = 31; bit >= 0; bit--) {
        const unsigned tried = threshold | (1u << bit);
        unsigned reached = 0;
#pragma unroll
        for (int j = 0; j < HELD; j++) reached += rank_of(v[j]) >= tried;
#pragma unroll
        for (int o = 16; o; o >>= 1) reached += __shfl_xor_sync(~0u, reached, o);
        if (reached >= how.top_k) threshold = tried;
      }
#pragma unroll
      for (int j = 0; j < HELD; j++)
        if (rank_of(v[j]) < threshold) v[j] = NEVER;
    }
    const float hottest = top / fmaxf(how.temperature, 1e-5f);
    float best;
    token = largest(
        [&](int j) { return lane + 32 * j < VOCABULARY ? expf(v[j] - hottest) / noise[lane + 32 * j] : -1.f; }, best);
  }
  ends = likeliest == end || token == end;
  return token;
}
