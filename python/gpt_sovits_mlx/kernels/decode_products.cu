// The matrices of the decode kernel, in any storage, and their products with ROWS vectors on tensor cores.
//
// Numbers that float16 cannot hold are the sum of two (`packed`): a product of them is that of their parts, but for the
// smallest, so that it is as good as one in float32.

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16(x); }

// Pairs of float16, and pairs of what they lack of float32 numbers.
__device__ __forceinline__ void split(const float (&x)[8], unsigned (&high)[4], unsigned (&low)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const __half2 near = __floats2half2_rn(x[2 * i], x[2 * i + 1]);
    const float2 back = __half22float2(near);
    const __half2 rest = __floats2half2_rn(x[2 * i] - back.x, x[2 * i + 1] - back.y);
    high[i] = *(const unsigned*)&near;
    low[i] = *(const unsigned*)&rest;
  }
}

// Eight neighbouring numbers of a row, as they are stored. EXACT: float16 holds them.
template <class T> struct Eight;

template <> struct Eight<float> {
  static constexpr bool EXACT = false;
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
  static constexpr bool EXACT = true;
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

// A matrix (rows, K) of plain numbers, copied to shared memory while a thread does other things.
template <class T, int K> struct Plain {
  const T* numbers;
  typedef Eight<T> Chunk;
  struct Held {};
  static constexpr int STOCK = sizeof(Chunk);
  __device__ __forceinline__ Plain layer(int l, int rows) const { return {numbers + size_t(l) * rows * K}; }
  __device__ __forceinline__ void ask(Held&, float4* stock, int row, int column) const {
    const T* const from = numbers + size_t(row) * K + column;
    const unsigned to = __cvta_generic_to_shared(stock);
#pragma unroll
    for (int i = 0; i < STOCK; i += 16)
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + i), "l"((const char*)from + i) : "memory");
  }
  __device__ __forceinline__ static Chunk take(const Held&, const float4* stock) { return *(const Chunk*)stock; }
};

// A matrix (rows, K) in groups of GROUP numbers of BITS bits, each standing for scale * q + bias (MLX's affine form).
template <class S, int K, int BITS, int GROUP> struct Grouped {
  const unsigned* packed;
  const S* scales;
  const S* biases;
  static constexpr int STOCK = 0;
  struct Chunk {
    static constexpr bool EXACT = false;
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
  typedef Chunk Held;
  __device__ __forceinline__ Grouped layer(int l, int rows) const {
    const size_t at = size_t(l) * rows;
    return {packed + at * (K * BITS / 32), scales + at * (K / GROUP), biases + at * (K / GROUP)};
  }
  __device__ __forceinline__ static Chunk take(const Held& held, const float4*) { return held; }
  __device__ __forceinline__ void ask(Held& chunk, float4*, int row, int column) const {
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

// Float16 pairs of a chunk.
template <class C> __device__ __forceinline__ void halves(const C& chunk, unsigned (&high)[4], unsigned (&low)[4]) {
  float x[8];
  chunk.unpack(x);
  split(x, high, low);
}
__device__ __forceinline__ void halves(const Eight<__half>& chunk, unsigned (&high)[4], unsigned (&)[4]) {
  high[0] = chunk.raw.x;
  high[1] = chunk.raw.y;
  high[2] = chunk.raw.z;
  high[3] = chunk.raw.w;
}

constexpr int up(int n, int to) { return (n + to - 1) / to * to; }

// sums (16, 8) += a (16, 16) b (16, 8), in float32.
__device__ __forceinline__ void multiply(float (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0,
                                         unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

constexpr int ACROSS = (ROWS + 7) / 8;                    // tiles of eight vectors
constexpr int SPREAD = ROWS <= 8 ? 8 : ROWS + 8;          // so that what lanes write in `sums` lies in other banks
constexpr int STRIDE = WIDTH + 4;                         // of a vector in shared memory, likewise

// Vectors of packed numbers in shared memory, STRIDE apart.
struct Near {
  const Word* words;
  template <int N> __device__ __forceinline__ void load(Word (&w)[N * ACROSS * 8], int chunk, int) const {
    const int thread = own_number(), g = thread % 32 / 4, t = thread % 4;
#pragma unroll
    for (int i = 0; i < N * ACROSS; i++) {
      const int row = i % ACROSS * 8 + g;
      uint4 first = {0, 0, 0, 0}, second = first;
      if (ROWS % 8 == 0 || row < ROWS) {
        const uint4* const from = (const uint4*)(words + row * STRIDE + (chunk + i / ACROSS) * 32 + 8 * t);
        first = from[0];
        second = from[1];
      }
      const Word both[8] = {first.x, first.y, first.z, first.w, second.x, second.y, second.z, second.w};
#pragma unroll
      for (int n = 0; n < 8; n++) w[i * 8 + n] = both[n];
    }
  }
};

// Vectors of packed words that other blocks write; rows that are not `active` are 0.
struct Far {
  const Word* words;
  Word mark;
  unsigned active;
  template <int N> __device__ __forceinline__ void load(Word (&w)[N * ACROSS * 8], int chunk, int left) const {
    const int thread = own_number(), g = thread % 32 / 4, t = thread % 4;
    unsigned wanted = bits(N * ACROSS * 2);
#pragma unroll
    for (int i = 0; i < N * ACROSS * 2; i++)
      if (!(active >> (i / 2 % ACROSS * 8 + g) & 1) || i / 2 / ACROSS >= left) wanted &= ~(1u << i);
    // in the order of `w`: chunks, tiles of vectors, halves of eight words
    await<N * ACROSS * 2, 4>(w, mark, words + place(chunk * 32 + 8 * t, g), wanted,
                             [](int i) { return ((i / 2 / ACROSS * 8 + i % 2) * ROWS + i / 2 % ACROSS * 8) * 4; });
  }
};

// Product of a matrix (R, K) with ROWS vectors: its rows are dealt to blocks, its columns in chunks of 32 to warps. A
// lane holds eight neighbours of a row in each chunk, so the columns are not in the tensor cores' order, but those of
// matrix and vectors in the same. `prefetch` asks for a warp's part, before the vectors are there: for that of the
// product after the next, so that the memory is always busy.
template <class M, int R, int K> struct Product {
  static constexpr int PER_BLOCK = (R + BLOCKS - 1) / BLOCKS;
  static constexpr int TILES = (PER_BLOCK + 15) / 16, TILE_ROWS = PER_BLOCK < 16 ? PER_BLOCK : 16;
  static constexpr bool UPPER = PER_BLOCK > 8;  // whether the upper eight rows of a tile are used
  static constexpr int HELD_ROWS = UPPER ? 16 : 8;
  static constexpr int CHUNKS = K / 32, MINE = (CHUNKS + WARPS - 1) / WARPS, BUSY = (CHUNKS + MINE - 1) / MINE;
  static constexpr int AT_ONCE = MINE * ACROSS <= 4 ? MINE : 4 / ACROSS;
  static_assert(16 * ROWS <= THREADS, "a thread for each sum");
  static constexpr int LANE = M::STOCK / 16, STOCKED = WARPS * MINE * TILE_ROWS * 4 * LANE;
  float4* stock;  // STOCKED of them in shared memory
  typename M::Held held[MINE][UPPER ? 2 : 1];
  float bias;  // of the sum that the thread makes

  __device__ __forceinline__ Product(float4* stock) : stock(stock) {}

  __device__ __forceinline__ float4* shelf(int warp, int m, int local, int t) const {
    return stock + (((warp * MINE + m) * TILE_ROWS + local) * 4 + t) * LANE;
  }

  // The row of the matrix, and the vector, whose product the thread makes; false where it makes none.
  __device__ __forceinline__ static bool own(int tile, int& local, int& row, int& vector) {
    const int thread = own_number();
    local = thread / (4 * ROWS) * 4 + thread % 4;
    row = blockIdx.x * PER_BLOCK + tile * 16 + local;
    vector = thread / 4 % ROWS;
    return local < min(16, PER_BLOCK - tile * 16) && row < R;
  }

  template <class B> __device__ __forceinline__ void load(const M& matrix, const B* biases, int tile) {
    const int thread = own_number(), warp = thread / 32, g = thread % 32 / 4, t = thread % 4;
    int own_local, own_row, vector;
    bias = biases && own(tile, own_local, own_row, vector) ? to_float(biases[own_row]) : 0.f;
#pragma unroll
    for (int m = 0; m < MINE; m++) {
      const int chunk = warp * MINE + m;
#pragma unroll
      for (int half = 0; half < (UPPER ? 2 : 1); half++) {
        const int local = half * 8 + g, row = blockIdx.x * PER_BLOCK + tile * 16 + local;
        if (chunk < CHUNKS && tile * 16 + local < PER_BLOCK && row < R)
          matrix.ask(held[m][half], shelf(warp, m, local, t), row, chunk * 32 + 8 * t);
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  template <class B> __device__ __forceinline__ void prefetch(const M& matrix, const B* biases) {
    load(matrix, biases, 0);
  }

  // `sums`: (BUSY, HELD_ROWS, SPREAD) in shared memory; `done(row, r, sum)` gets each result once.
  template <class B, class Vectors, class Done>
  __device__ __forceinline__ void run(const M& matrix, const B* biases, const Vectors& x, float* sums, Done done) {
    const int thread = own_number(), warp = thread / 32, g = thread % 32 / 4, t = thread % 4;
    // all that was asked for but the next product's
    asm volatile("cp.async.wait_group 1;" ::: "memory");
#pragma unroll 1
    for (int tile = 0; tile < TILES; tile++) {
      if (tile) {
        load(matrix, biases, tile);
        asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
      }
      float made[ACROSS][4];
#pragma unroll
      for (int n = 0; n < ACROSS; n++) made[n][0] = made[n][1] = made[n][2] = made[n][3] = 0;
#pragma unroll
      for (int m = 0; m < MINE; m += AT_ONCE) {
        Word w[AT_ONCE * ACROSS * 8];
        const int chunk = warp * MINE + m;
        if (chunk < CHUNKS) x.template load<AT_ONCE>(w, chunk, min(MINE - m, CHUNKS - chunk));
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
          if (m + j < MINE && chunk + j < CHUNKS) add(made, m + j, warp, g, t, w + j * ACROSS * 8);
      }
      if (warp < BUSY) {
#pragma unroll
        for (int n = 0; n < ACROSS; n++) {
          float* const at = sums + (warp * HELD_ROWS + g) * SPREAD + 8 * n + 2 * t;
          *(float2*)at = make_float2(made[n][0], made[n][1]);
          if (UPPER) *(float2*)(at + 8 * SPREAD) = make_float2(made[n][2], made[n][3]);
        }
      }
      __syncthreads();
      int local, row, vector;
      if (own(tile, local, row, vector)) {
        float sum = bias;
#pragma unroll
        for (int s = 0; s < BUSY; s++) sum += sums[(s * HELD_ROWS + local) * SPREAD + vector];
        done(row, vector, sum);
      }
    }
  }

  // The share of a chunk, whose vectors are `w`.
  __device__ __forceinline__ void add(float (&made)[ACROSS][4], int m, int warp, int g, int t, const Word* w) const {
    unsigned high[2][4] = {}, low[2][4] = {};
#pragma unroll
    for (int half = 0; half < (UPPER ? 2 : 1); half++)
      if (half * 8 + g < PER_BLOCK) halves(M::take(held[m][half], shelf(warp, m, half * 8 + g, t)), high[half], low[half]);
#pragma unroll
    for (int n = 0; n < ACROSS; n++) {
#pragma unroll
      for (int part = 0; part < 2; part++) {
        const Word* const four = w + n * 8 + part * 4;
        const unsigned first = __byte_perm(four[0], four[1], 0x7632), second = __byte_perm(four[2], four[3], 0x7632);
        const unsigned (&a)[4] = high[0], (&b)[4] = high[1];
        multiply(made[n], a[2 * part], b[2 * part], a[2 * part + 1], b[2 * part + 1], first, second);
        multiply(made[n], a[2 * part], b[2 * part], a[2 * part + 1], b[2 * part + 1],
                 __byte_perm(four[0], four[1], 0x5410), __byte_perm(four[2], four[3], 0x5410));
        if (!M::Chunk::EXACT)
          multiply(made[n], low[0][2 * part], low[1][2 * part], low[0][2 * part + 1], low[1][2 * part + 1], first, second);
      }
    }
  }
};

template <class T> struct alignas(4 * sizeof(T)) Four {
  T numbers[4];
};

// Layer normalisation of ROWS vectors that arrive as float32 words, packed to shared memory.
template <class T>
__device__ __forceinline__ void normalise(
    const Word* words, Word mark, const T* gain, const T* shift, Word* x, float* shared) {
  constexpr int ITEMS = WIDTH / 4 * ROWS, PASSES = (ITEMS + THREADS - 1) / THREADS;
  constexpr int PARTS = ITEMS < THREADS ? (ITEMS + 31) / 32 : WARPS;  // warps that have a share of a row
  const int thread = own_number(), row = thread % ROWS, lane = thread % 32, warp = thread / 32;
  auto item = [&](int pass) { return pass * THREADS + thread; };
  float v[PASSES * 4];
  Four<T> g[PASSES], h[PASSES];
#pragma unroll
  for (int i = 0; i < PASSES; i++) {
    const int element = min(item(i), ITEMS - 1) / ROWS * 4;
    g[i] = *(const Four<T>*)(gain + element);
    h[i] = *(const Four<T>*)(shift + element);
  }
  unsigned wanted = bits(PASSES);
  if (ITEMS % THREADS && item(PASSES - 1) >= ITEMS) wanted &= ~(1u << (PASSES - 1));
  fetch<PASSES, 4>(v, mark, words + 4 * thread, wanted, [](int i) { return i * THREADS * 4; });
  // over the lanes of a row, then over the warps
  auto over_row = [&](float sum, float* parts) {
#pragma unroll
    for (int o = 16; o >= ROWS; o >>= 1) sum += __shfl_xor_sync(~0u, sum, o);
    if (warp < PARTS && lane < ROWS) parts[warp * ROWS + lane] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int w = 0; w < PARTS; w++) sum += parts[w * ROWS + row];
    return sum;
  };
  float sum = 0, square = 0;
#pragma unroll
  for (int i = 0; i < PASSES * 4; i++) sum += v[i];
  const float mean = over_row(sum, shared) / WIDTH;
#pragma unroll
  for (int i = 0; i < PASSES * 4; i++) square += item(i / 4) < ITEMS ? (v[i] - mean) * (v[i] - mean) : 0.f;
  const float scale = rsqrtf(over_row(square, shared + WARPS * ROWS) / WIDTH + 1e-5f);
#pragma unroll
  for (int i = 0; i < PASSES; i++) {
    if (item(i) >= ITEMS) break;
    Word made[4];
#pragma unroll
    for (int n = 0; n < 4; n++)
      made[n] = packed((v[4 * i + n] - mean) * scale * to_float(g[i].numbers[n]) + to_float(h[i].numbers[n]));
    *(uint4*)(x + row * STRIDE + item(i) / ROWS * 4) = make_uint4(made[0], made[1], made[2], made[3]);
  }
  __syncthreads();
}
