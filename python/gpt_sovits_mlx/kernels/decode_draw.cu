// Drawing the next token of a row, by a warp, as `sampling.sample` does.

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int o = 16; o; o >>= 1) x += __shfl_xor_sync(~0u, x, o);
  return x;
}

// The order of floats as that of unsigned numbers.
__device__ __forceinline__ unsigned rank_of(float x) {
  const unsigned bits = __float_as_uint(x);
  return bits ^ (bits >> 31 ? ~0u : 0x80000000u);
}

__device__ __forceinline__ float of_rank(unsigned rank) {
  return __uint_as_float(rank ^ (rank >> 31 ? 0x80000000u : ~0u));
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
    const float (&logits)[HELD], const unsigned* seen, const float* noise, int step, const Draw& how, bool& ends) {
  const int lane = threadIdx.x & 31, end = VOCABULARY - 1;
  float v[HELD];
#pragma unroll
  for (int j = 0; j < HELD; j++) {
    const int index = lane + 32 * j;
    v[j] = logits[j];
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
      // the largest threshold that top_k of them reach, or one that no more do; meanwhile `v` holds the ranks' bits
      unsigned threshold = 0;
#pragma unroll
      for (int j = 0; j < HELD; j++) v[j] = __uint_as_float(rank_of(v[j]));
      for (int bit = 31; bit >= 0; bit--) {
        const unsigned tried = threshold | (1u << bit);
        int reached = 0;
#pragma unroll
        for (int j = 0; j < HELD; j++) reached += __float_as_uint(v[j]) >= tried;
        reached = __reduce_add_sync(~0u, reached);
        if (reached >= how.top_k) threshold = tried;
        if (reached == how.top_k) break;
      }
#pragma unroll
      for (int j = 0; j < HELD; j++) v[j] = __float_as_uint(v[j]) < threshold ? NEVER : of_rank(__float_as_uint(v[j]));
    }
    const float hottest = top / fmaxf(how.temperature, 1e-5f);
    float best;
    token = largest(
        [&](int j) { return v[j] > NEVER ? expf(v[j] - hottest) / noise[lane + 32 * j] : -1.f; }, best);
  }
  ends = likeliest == end || token == end;
  return token;
}
