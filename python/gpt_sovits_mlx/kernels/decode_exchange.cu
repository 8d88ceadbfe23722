// How the blocks of the decode kernel hand each other vectors: in words that carry their own arrival.
//
// A word's lowest bit is a mark that changes from one use of its place to the next. A reader polls the very words that
// it needs until they bear the mark of this use, so that no barrier, fence or second round trip is needed: a phase
// costs one trip through L2. A word holds a float32, to which the bit is 1e-7 of its value, or, where only tensor cores
// read it, a number as the sum of two float16 (`packed`), to which it is 5e-7.
//
// The words of ROWS vectors lie in groups of four neighbouring elements, the rows' groups side by side (`place`): what
// a block writes and what a warp reads is contiguous.

typedef unsigned Word;
constexpr int WARPS = THREADS / 32;
constexpr float NONE = -1e30f;
#define NEVER __int_as_float(0xff800000)  // minus infinity

// The thread's number, asked for anew: what is made of it need not be kept in registers, which are scarce.
__device__ __forceinline__ int own_number() {
  int number;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
  return number;
}

// Places hold 0 at first.
__device__ __forceinline__ Word mark_of(unsigned use) { return ~use & 1; }

__device__ __forceinline__ int place(int element, int row) { return ((element >> 2) * ROWS + row) * 4 + (element & 3); }

__device__ __forceinline__ void put_word(Word* at, Word word, Word mark) {
  asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(at), "r"((word & ~1u) | mark) : "memory");
}

__device__ __forceinline__ void put(Word* at, float value, Word mark) { put_word(at, __float_as_uint(value), mark); }

// The upper half is the nearest float16, the lower one what it lacks: 22 bits of the number.
__device__ __forceinline__ Word packed(float x) {
  x = fminf(fmaxf(x, -65504.f), 65504.f);
  const __half high = __float2half_rn(x), low = __float2half_rn(x - __half2float(high));
  return Word(__half_as_ushort(high)) << 16 | __half_as_ushort(low);
}

__device__ __forceinline__ float unpacked(Word word) {
  return __half2float(__ushort_as_half(word >> 16)) + __half2float(__ushort_as_half(word & 0xffff));
}

template <int N> __device__ __forceinline__ void look(const Word* at, Word* words);
template <> __device__ __forceinline__ void look<1>(const Word* at, Word* w) {
  asm volatile("ld.relaxed.gpu.global.b32 %0, [%1];" : "=r"(w[0]) : "l"(at) : "memory");
}
template <> __device__ __forceinline__ void look<4>(const Word* at, Word* w) {
  asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(w[0]), "=r"(w[1]), "=r"(w[2]), "=r"(w[3])
               : "l"(at)
               : "memory");
}

// Those of N groups of SIZE neighbouring words that are `wanted` (a bit for each), at base + offset(i); the others are 0.
// They are all under way before the first is waited for, but where that is so much that asking in vain would hold up
// those who write them: there the last one is waited for first.
template <int N, int SIZE, class Offset>
__device__ __forceinline__ void await(Word (&words)[N * SIZE], Word mark, const Word* base, unsigned wanted, Offset offset) {
  static_assert(N <= 32, "a bit for each group");
#pragma unroll
  for (int i = 0; i < N * SIZE; i++) words[i] = 0;
  if (ROWS >= 16 && N > 2 && wanted >> (N - 1)) {
    do look<1>(base + offset(N - 1), words);
    while ((words[0] & 1) != mark);
    words[0] = 0;
  }
  while (wanted) {
#pragma unroll
    for (int i = 0; i < N; i++)
      if (wanted >> i & 1) look<SIZE>(base + offset(i), words + i * SIZE);
#pragma unroll
    for (int i = 0; i < N; i++) {
      bool here = true;
#pragma unroll
      for (int n = 0; n < SIZE; n++) here &= (words[i * SIZE + n] & 1) == mark;
      if (here) wanted &= ~(1u << i);
    }
  }
}

constexpr unsigned bits(int count) { return count >= 32 ? ~0u : (1u << count) - 1; }

template <int N, int SIZE, class Offset>
__device__ __forceinline__ void fetch(float (&values)[N * SIZE], Word mark, const Word* base, unsigned wanted, Offset offset) {
  Word words[N * SIZE];
  await<N, SIZE>(words, mark, base, wanted, offset);
#pragma unroll
  for (int i = 0; i < N * SIZE; i++) values[i] = __uint_as_float(words[i]);
}

// All threads of a team of a block's warps have come so far.
template <int COUNT> __device__ __forceinline__ void wait_for_team(int team) {
  if (COUNT == THREADS) __syncthreads();
  else asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "n"(COUNT) : "memory");
}
