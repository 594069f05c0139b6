"""The CUDA source of ``fused_conv``: an implicit matrix product on tensor cores, channels last.

A block makes BM outputs (frames, or a patch of an image) by BN channels. It walks over chunks of BK input
channels and, within a chunk, over the kernel's taps: the inputs of a chunk, halo included, lie in shared memory once
for all taps, and the weights of the next two taps are on their way while one is multiplied.

float32 (SPLIT) is kept by three products: each operand is split into its TF32 head and the rest, and
``head * head + (rest * head + head * rest)`` is summed. Tensor cores cut off the low bits of a running sum, so every
16-deep product of heads is added to the running sum outside (Ootomo and Yokota, 2022). The corrections are 2^11 times
smaller: they take half-precision operands, at twice the rate, rests scaled by 2^11 against underflow, and their sum
stays in the tensor cores.

Template values: BM, BN, BK (16 or 32), WARPS_M, WARPS_N and SPLIT. All else is an argument, because each compiled
variant costs seconds at first use: ``wide`` is the width of a patch (a power of two; 0 in one dimension), ``up`` a
transposed 2-D convolution of stride 2 as four phases.
"""

# what only a GPU has: tests put stand-ins in its place
DEVICE = r"""
namespace fused {
__device__ __forceinline__ float rounded(float v) {
  unsigned r; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v)); return __uint_as_float(r);
}
// d = a * b + c of 16 x 8 x 8; the tensor core ignores the low 13 bits of its operands
__device__ __forceinline__ void product(float* d, const unsigned* a, const unsigned* b, const float* c) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
// four 8 x 4 matrices of words: lane l gives the address of row l % 8 of matrix l / 8
__device__ __forceinline__ void load_matrices(unsigned* r, const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"((unsigned)__cvta_generic_to_shared(row)));
}
__device__ __forceinline__ void copy16(void* to, const float* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
      :: "r"((unsigned)__cvta_generic_to_shared(to)), "l"(from), "r"(inside ? 16 : 0));
}
// d += a * b of 16 x 8 x 16 in half precision
__device__ __forceinline__ void correct(float* d, const unsigned* a, const unsigned* b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// beyond half precision's range a correction is too small, and no more
__device__ __forceinline__ unsigned halves(float low, float high) {
  unsigned r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r)
      : "f"(fminf(fmaxf(high, -65504.0f), 65504.0f)), "f"(fminf(fmaxf(low, -65504.0f), 65504.0f)));
  return r;
}
__device__ __forceinline__ void close_group() { asm volatile("cp.async.commit_group;"); }
template <int NEWEST> __device__ __forceinline__ void wait_for_all_but() {
  asm volatile("cp.async.wait_group %0;" :: "n"(NEWEST));
}
}
"""

COMMON = r"""
namespace fused {
// the head is what a tensor core reads of a float32: all but the low 13 bits
__device__ __forceinline__ float rest(float v) { return v - __uint_as_float(__float_as_uint(v) & 0xffffe000u); }
__device__ __forceinline__ float activated(float v, int kind, float slope) {
  if (kind == 1) return fmaxf(v, v * slope);
  if (kind == 2) return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
  if (kind == 3) return tanhf(v);
  return v;
}
}
"""

HEADER = DEVICE + COMMON

SOURCE = r"""
  using namespace fused;
  constexpr int THREADS = 32 * WARPS_M * WARPS_N;
  constexpr int MT = BM / WARPS_M / 16, NT = BN / WARPS_N / 8;        // a warp's tiles of 16 x 8
  constexpr int GROUP = NT % 4 == 0 ? 4 : NT % 2 == 0 ? 2 : 1;        // of them side by side, to hide latency
  constexpr int ROW = BK + 4;                                         // padded: eight rows meet in no bank
  const int taps = sizes[0], dilation = sizes[1], padding = sizes[2], c_in = sizes[3], c_out = sizes[4];
  const int wide = sizes[11], up = sizes[12], side = up ? 2 : 3, pitch = wide + side - 1;
  const int shift = wide ? 31 - __clz(wide) : 0, tall = BM >> shift;
  const int c_padded = sizes[5], groups = sizes[6], stride = sizes[7], adds = sizes[8], kind = sizes[9];
  const float slope_in = slopes[0], slope_out = slopes[1], scale = slopes[2];
  const int inputs = x_shape[1], columns = wide ? x_shape[2] : 1;
  const int outputs = wide ? inputs : (inputs + 2 * padding - dilation * (taps - 1) - 1) / stride + 1;
  const int rows = wide ? pitch * (tall + side - 1) : (BM - 1) * stride + (taps - 1) * dilation + 1;
  constexpr int HALF_ROW = SPLIT ? BK + 8 : 0;                        // in halves
  extern __shared__ float4 shared4[];
  // [raws][rows][BK]: as it comes. With one tap a chunk is used up in one step: two are on their way
  const int raws = taps == 1 ? 2 : 1, raw_size = rows * BK;
  float* raw = reinterpret_cast<float*>(shared4);
  float* xs = raw + raws * raw_size;                                  // [rows][ROW]: activated
  unsigned short* xh = reinterpret_cast<unsigned short*>(xs + rows * ROW);  // [2][rows][HALF_ROW]: heads, rests * 2^11
  float* ws = reinterpret_cast<float*>(xh + 2 * rows * HALF_ROW);     // [3][BN][ROW]
  unsigned short* wh = reinterpret_cast<unsigned short*>(ws + 3 * BN * ROW);  // [3][2][BN][HALF_ROW]
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  const int wm = (warp % WARPS_M) * MT * 16, wn = (warp / WARPS_M) * NT * 8;
  const int blocks_n = c_padded / BN, group = blockIdx.y / blocks_n, n0 = (blockIdx.y % blocks_n) * BN;
  const int shares = sizes[10], batch = blockIdx.z / shares, share = blockIdx.z % shares, channels = c_in * groups;
  const int patches = wide ? columns / wide : 1;
  const int m0 = wide ? blockIdx.x / patches * tall : blockIdx.x * BM;  // first row of the image, or first frame
  const int left = blockIdx.x % patches * wide;
  const float* xb = x + (size_t)batch * inputs * columns * channels + group * c_in;
  // few outputs of many channels: blocks share the input channels of one output
  const int chunks = c_in / BK, steps = chunks * taps;
  const int first_step = chunks * share / shares * taps, last_step = chunks * (share + 1) / shares * taps;
  const size_t total_size = (size_t)gridDim.z / shares * outputs * columns * c_out * groups;
  // each thread copies one column of 16 bytes of every LANES-th row
  constexpr int LANES = THREADS / (BK / 4);
  const int my_row = tid / (BK / 4), my_part = tid % (BK / 4) * 4;
  auto load_x = [&](int chunk) {
    const float* from = xb + chunk * BK + my_part;
    float* to = raw + (chunk & (raws - 1)) * raw_size + tid * 4;
    if (wide) {
      const int inverse = (65535 + pitch) / pitch;                    // row / pitch, exact for fewer than 1000 rows
      #pragma unroll 2
      for (int row = my_row; row < rows; row += LANES, to += THREADS * 4) {
        const int down = row * inverse >> 16, r = m0 + down - padding, c = left + row - down * pitch - padding;
        const bool inside = r >= 0 && r < inputs && c >= 0 && c < columns;
        copy16(to, from + (inside ? (size_t)r * columns + c : 0) * channels, inside);
      }
    } else {
      int t = m0 * stride - padding + my_row;
      const float* at = from + (ptrdiff_t)t * channels;
      const int step = LANES * channels;
      #pragma unroll 2
      for (int row = my_row; row < rows; row += LANES, t += LANES, at += step, to += THREADS * 4) {
        const bool inside = t >= 0 && t < inputs;
        copy16(to, inside ? at : from, inside);
      }
    }
  };
  auto split_x = [&](int chunk) {
    const float4* from = reinterpret_cast<const float4*>(raw + (chunk & (raws - 1)) * raw_size) + tid;
    float* to = xs + my_row * ROW + my_part;
    #pragma unroll 2
    for (int row = my_row; row < rows; row += LANES, from += THREADS, to += LANES * ROW) {
      float4 v = *from;
      v.x = fmaxf(v.x, v.x * slope_in); v.y = fmaxf(v.y, v.y * slope_in);
      v.z = fmaxf(v.z, v.z * slope_in); v.w = fmaxf(v.w, v.w * slope_in);
      if constexpr (SPLIT) {
        *reinterpret_cast<float4*>(to) = v;
        const float a = rest(v.x), b = rest(v.y), c = rest(v.z), d = rest(v.w);
        unsigned short* half = xh + row * HALF_ROW + my_part;
        *reinterpret_cast<uint2*>(half) = make_uint2(halves(v.x - a, v.y - b), halves(v.z - c, v.w - d));
        *reinterpret_cast<uint2*>(half + rows * HALF_ROW) =
            make_uint2(halves(a * 2048.0f, b * 2048.0f), halves(c * 2048.0f, d * 2048.0f));
      } else *reinterpret_cast<float4*>(to) = make_float4(rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w));
    }
  };
  // weights come as [group][chunk][tap][block], then [BN][BK] floats and [2][BN][BK] halves
  constexpr int W_SIZE = (SPLIT ? 2 : 1) * BN * BK, HALF_LANES = THREADS / (BK / 8);
  const size_t w_stride = (size_t)blocks_n * W_SIZE;
  const float* w_next = w + (size_t)group * steps * w_stride + (size_t)(blockIdx.y % blocks_n) * W_SIZE + tid * 4
                        + (size_t)first_step * w_stride;
  float* const w_to = ws + my_row * ROW + my_part;
  const int half_row = tid / (BK / 8);
  unsigned short* const half_to = wh + half_row * HALF_ROW + tid % (BK / 8) * 8;
  int w_step = first_step, w_slot = 0;
  auto load_w = [&]() {
    if (w_step < last_step) {
      #pragma unroll
      for (int j = 0; j < (BN + LANES - 1) / LANES; j++)
        if (BN % LANES == 0 || my_row + j * LANES < BN)
          copy16(w_to + (w_slot * BN + j * LANES) * ROW, w_next + j * THREADS * 4, true);
      if constexpr (SPLIT)
        #pragma unroll
        for (int j = 0; j < (2 * BN + HALF_LANES - 1) / HALF_LANES; j++)
          if (2 * BN % HALF_LANES == 0 || half_row + j * HALF_LANES < 2 * BN)
            copy16(half_to + (w_slot * 2 * BN + j * HALF_LANES) * HALF_ROW, w_next + BN * BK + j * THREADS * 4, true);
    }
    w_next += w_stride;
    w_step++;
    w_slot = w_slot == 2 ? 0 : w_slot + 1;
    close_group();
  };

  // where this lane reads its rows: of A row lane % 16 of each tile, of B row lane % 8 of two tiles
  int a_row[MT];
  #pragma unroll
  for (int i = 0; i < MT; i++) {
    const int p = wm + i * 16 + lane % 16;
    a_row[i] = wide ? (p >> shift) * pitch + (p & (wide - 1)) : p * stride;
  }
  const int b_row = wn + (GROUP > 1 ? lane / 16 * 8 : 0) + lane % 8;
  const int a_part = lane / 16, b_part = lane / 8 % 2;                // which 16 bytes of them

  float sum[MT][NT][4] = {}, correction[MT][NT][4] = {};
  const float zeros[4] = {};
  int tap = 0, chunk = first_step / taps, slot = 0, tap_row = 0, tap_column = 0;
  load_x(chunk);
  load_w();
  if (raws == 2 && first_step + 1 < last_step) load_x(chunk + 1);
  load_w();
  for (int step = first_step; step < last_step; step++) {
    wait_for_all_but<1>();                                            // the youngest is for the step after this
    __syncthreads();
    if (tap == 0) {
      split_x(chunk);
      __syncthreads();
      if (step + raws * taps < last_step) load_x(chunk + raws);
    }
    load_w();
    const int offset = wide ? tap_row * pitch + tap_column : tap * dilation;
    const float* xt = xs + offset * ROW + a_part * 4;
    const float* wt = ws + (slot * BN + b_row) * ROW + b_part * 4;
    const unsigned short* xht = xh + offset * HALF_ROW + a_part * 8;
    const unsigned short* wht = wh + (slot * 2 * BN + b_row) * HALF_ROW + b_part * 8;
    #pragma unroll
    for (int k = 0; k < BK; k += 16) {
      #pragma unroll
      for (int n = 0; n < NT; n += GROUP) {
        float part[MT][GROUP][4];
        #pragma unroll
        for (int turn = 0; turn < (SPLIT ? 4 : 2); turn++) {          // head * head, and between them the corrections
          const int d = SPLIT ? turn / 2 : turn;
          const bool half = SPLIT && turn % 2;
          unsigned a[MT][4], b[GROUP][2];
          #pragma unroll
          for (int i = 0; i < MT; i++)
            if (half) load_matrices(a[i], xht + (d * rows + a_row[i]) * HALF_ROW + k);
            else load_matrices(a[i], xt + a_row[i] * ROW + k + d * 8);
          #pragma unroll
          for (int m = 0; m < GROUP; m += 2) {
            unsigned four[4];
            if (half) load_matrices(four, wht + ((1 - d) * BN + (n + m) * 8) * HALF_ROW + k);
            else load_matrices(four, wt + (n + m) * 8 * ROW + k + d * 8);
            #pragma unroll
            for (int j = 0; j < 4; j++)
              if (m + j / 2 < GROUP) b[m + j / 2][j % 2] = four[j];
          }
          #pragma unroll
          for (int i = 0; i < MT; i++)                                // tiles inside: neighbours do not wait
            #pragma unroll
            for (int m = 0; m < GROUP; m++)
              if (half) correct(correction[i][n + m], a[i], b[m]);
              else if (SPLIT) product(part[i][m], a[i], b[m], d == 0 ? zeros : part[i][m]);
              else product(sum[i][n + m], a[i], b[m], sum[i][n + m]);
        }
        if constexpr (SPLIT)
          #pragma unroll
          for (int i = 0; i < MT; i++)
            #pragma unroll
            for (int m = 0; m < GROUP; m++)
              #pragma unroll
              for (int j = 0; j < 4; j++) sum[i][n + m][j] += part[i][m][j];
      }
    }
    slot = slot == 2 ? 0 : slot + 1;
    if (++tap == taps) { tap = tap_row = tap_column = 0; chunk++; }
    else if (wide && ++tap_column == side) { tap_column = 0; tap_row++; }
  }
  // through shared memory, so that a thread writes four channels in a row
  constexpr int OUT_ROW = BN + 4;
  float* tile = raw;
  __syncthreads();
  #pragma unroll
  for (int i = 0; i < MT; i++)
    #pragma unroll
    for (int n = 0; n < NT; n++)
      #pragma unroll
      for (int h = 0; h < 2; h++) {
        float2 v = make_float2(sum[i][n][2 * h], sum[i][n][2 * h + 1]);
        if (SPLIT) {
          v.x += correction[i][n][2 * h] * (1.0f / 2048.0f);
          v.y += correction[i][n][2 * h + 1] * (1.0f / 2048.0f);
        }
        const int p = wm + i * 16 + lane / 4 + h * 8;
        *reinterpret_cast<float2*>(tile + p * OUT_ROW + wn + n * 8 + lane % 4 * 2) = v;
      }
  __syncthreads();
  #pragma unroll 1
  for (int i = tid; i < BM * (BN / 4); i += THREADS) {
    const int p = i / (BN / 4), col = n0 + i % (BN / 4) * 4;
    const int r = m0 + (wide ? p >> shift : p), c = wide ? left + (p & (wide - 1)) : 0;
    if (r >= outputs || col >= c_out) continue;
    size_t at;
    if (up) {
      const int quarter = c_out / 4, phase = col / quarter;
      const size_t row = (size_t)batch * outputs * 2 + 2 * r + phase / 2;
      at = (row * columns * 2 + 2 * c + phase % 2) * quarter + col % quarter;
    } else at = (((size_t)batch * outputs + r) * columns + c) * c_out * groups + group * c_out + col;
    float4 v = *reinterpret_cast<float4*>(tile + p * OUT_ROW + i % (BN / 4) * 4);
    float* four = reinterpret_cast<float*>(&v);
    const int count = min(4, c_out - col);
    const bool whole = c_out % 4 == 0;
    if (shares > 1) at += (size_t)share * total_size;                 // a share of the sum: the rest follows elsewhere
    else {
      const float* offset = bias + group * c_out + col;
      #pragma unroll
      for (int j = 0; j < 4; j++) if (j < count) four[j] = activated(four[j] + offset[j], kind, slope_out);
      for (int extra = 0; extra < 2; extra++) {
        if (!(adds & (1 << extra))) continue;
        const float* more = (extra ? running : residual) + at;
        if (whole) {
          const float4 w4 = *reinterpret_cast<const float4*>(more);
          v.x += w4.x; v.y += w4.y; v.z += w4.z; v.w += w4.w;
        } else for (int j = 0; j < count; j++) four[j] += more[j];
      }
      v.x *= scale; v.y *= scale; v.z *= scale; v.w *= scale;
    }
    if (whole) *reinterpret_cast<float4*>(out + at) = v;
    else for (int j = 0; j < count; j++) out[at + j] = four[j];
  }
"""

# the shares of a sum, and what follows it: one output a thread
SUM_SOURCE = r"""
  using namespace fused;
  const int shares = sizes[0], count = sizes[1], channels = sizes[2], adds = sizes[3], kind = sizes[4];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float v = 0.0f;
  for (int share = 0; share < shares; share++) v += parts[(size_t)share * count + i];
  v = activated(v + bias[i % channels], kind, slopes[1]);
  if (adds & 1) v += residual[i];
  if (adds & 2) v += running[i];
  out[i] = v * slopes[2];
"""
