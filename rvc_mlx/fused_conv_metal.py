"""The Metal source of ``fused_conv``: an implicit matrix product of simdgroup matrices, channels last.

As in ``fused_conv_cuda``, a threadgroup makes BM outputs by BN channels and walks over chunks of BK input channels,
whose inputs, halo included, lie in threadgroup memory once for all taps. Weights are read where they are, as
``[BK][BN]`` of each tap: simdgroups share them through the cache. Products of floats are float32 here, so nothing is
split. A patch's outputs are counted down its columns, so that eight in a row are evenly apart however narrow it is.

Never run on Metal: ``tests/rvc_mlx/metal_stand_in.h`` runs it on a CPU. Metal is C++14 without lambdas, and what has
fewer than eight values comes in another address space: bias, residual, running and slopes are only ever indexed.
"""

from .erf import ERF_P, ERF_Q

# what a threadgroup may have of its memory
MOST_BYTES = 32 * 1024


def threadgroup_bytes(need: int) -> int:
    """Rounded up, because each size is a variant of its own to compile; 0 for more than there is."""
    return 0 if need > MOST_BYTES else -(-need // 4096) * 4096


def _polynomial(powers: tuple[float, ...]) -> str:
    total = f"{powers[0]}f"
    for power in powers[1:]:
        total = f"({total} * q + {power}f)"
    return total


HEADER = f"""
#include <metal_simdgroup_matrix>
#include <metal_stdlib>
using namespace metal;
namespace fused {{
inline float erf(float v) {{
  const float z = clamp(v, -4.0f, 4.0f), q = z * z;
  return z * {_polynomial(ERF_P)} / {_polynomial(ERF_Q)};
}}
inline float activated(float v, int kind, float slope) {{
  if (kind == 1) return max(v, v * slope);
  if (kind == 2) return 0.5f * v * (1.0f + fused::erf(v * 0.70710678118654752f));
  if (kind == 3) return metal::precise::tanh(v);
  return v;
}}
}}
"""

# SHARED: floats of threadgroup memory, set in front
SOURCE = r"""
  constexpr int THREADS = 32 * WARPS_M * WARPS_N;
  constexpr int MT = BM / WARPS_M / 8, NT = BN / WARPS_N / 8;         // a simdgroup's matrices of 8 x 8
  constexpr int ROW = BK + 4, OUT_ROW = BN + 4;                       // padded: eight rows meet in fewer banks
  threadgroup float4 memory[SHARED / 4];
  threadgroup float* xs = (threadgroup float*)memory;                 // [rows][ROW], then [8 * WARPS_M][OUT_ROW]
  const int taps = sizes[0], dilation = sizes[1], padding = sizes[2], c_in = sizes[3], c_out = sizes[4];
  const int c_padded = sizes[5], groups = sizes[6], stride = sizes[7], adds = sizes[8], kind = sizes[9];
  const int shares = sizes[10], wide = sizes[11], up = sizes[12];
  const float slope_in = slopes[0], slope_out = slopes[1], scale = slopes[2];
  const int side = up ? 2 : 3, tall = wide ? BM / wide : BM, pitch = wide + side - 1;
  const int inputs = x_shape[1], columns = wide ? x_shape[2] : 1, channels = c_in * groups;
  const int outputs = wide ? inputs : (inputs + 2 * padding - dilation * (taps - 1) - 1) / stride + 1;
  const int rows = wide ? pitch * (tall + side - 1) : (BM - 1) * stride + (taps - 1) * dilation + 1;
  const int tid = thread_index_in_threadgroup, sgid = simdgroup_index_in_threadgroup;
  const int wm = sgid % WARPS_M, wn = sgid / WARPS_M * NT * 8;
  const int block_x = threadgroup_position_in_grid.x, block_y = threadgroup_position_in_grid.y;
  const int block_z = threadgroup_position_in_grid.z, batch = block_z / shares, share = block_z % shares;
  const int blocks_n = c_padded / BN, group = block_y / blocks_n, n0 = block_y % blocks_n * BN;
  const int patches = wide ? columns / wide : 1;
  const int m0 = wide ? block_x / patches * tall : block_x * BM;      // first row of the image, or first frame
  const int left = block_x % patches * wide;
  const int chunks = c_in / BK;
  const device float* xb = x + (size_t)batch * inputs * columns * channels + group * c_in;
  const device float* wb = w + ((size_t)group * chunks * taps * blocks_n + block_y % blocks_n) * (BK * BN) + wn;

  simdgroup_matrix<float, 8, 8> sum[MT][NT];
  int a_at[MT];                                                       // where a matrix's first row begins
  #pragma unroll
  for (int i = 0; i < MT; i++) {
    const int p = (wm * MT + i) * 8;
    a_at[i] = (wide ? p % tall * pitch + p / tall : p * stride) * ROW;
    #pragma unroll
    for (int j = 0; j < NT; j++) sum[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  }
  const int a_row = (wide ? pitch : stride) * ROW;                    // and how far its rows are apart
  for (int chunk = chunks * share / shares; chunk < chunks * (share + 1) / shares; chunk++) {
    threadgroup_barrier(mem_flags::mem_threadgroup);                  // nobody reads the last chunk any more
    for (int i = tid; i < rows * (BK / 4); i += THREADS) {
      const int row = i / (BK / 4), part = i % (BK / 4) * 4;
      const int r = wide ? m0 + row / pitch - padding : m0 * stride + row - padding;
      const int c = wide ? left + row % pitch - padding : 0;
      float4 v = float4(0.0f);
      if (r >= 0 && r < inputs && c >= 0 && c < columns)
        v = *(const device float4*)(xb + ((size_t)r * columns + c) * channels + chunk * BK + part);
      *(threadgroup float4*)(xs + row * ROW + part) = max(v, v * slope_in);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int tap = 0; tap < taps; tap++) {
      const threadgroup float* xt = xs + (wide ? tap / side * pitch + tap % side : tap * dilation) * ROW;
      const device float* wt = wb + ((size_t)chunk * taps + tap) * blocks_n * (BK * BN);
      #pragma unroll
      for (int k = 0; k < BK; k += 8) {
        simdgroup_matrix<float, 8, 8> a[MT], b[NT];
        #pragma unroll
        for (int i = 0; i < MT; i++) simdgroup_load(a[i], xt + a_at[i] + k, a_row);
        #pragma unroll
        for (int j = 0; j < NT; j++) simdgroup_load(b[j], wt + k * BN + j * 8, BN);
        #pragma unroll
        for (int i = 0; i < MT; i++)
          #pragma unroll
          for (int j = 0; j < NT; j++) simdgroup_multiply_accumulate(sum[i][j], a[i], b[j], sum[i][j]);
      }
    }
  }
  // eight outputs of each simdgroup at a time through threadgroup memory: neighbours write neighbouring channels
  #pragma unroll
  for (int i = 0; i < MT; i++) {
    threadgroup_barrier(mem_flags::mem_threadgroup);
    #pragma unroll
    for (int j = 0; j < NT; j++) simdgroup_store(sum[i][j], xs + wm * 8 * OUT_ROW + wn + j * 8, OUT_ROW);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (int q = tid; q < 8 * WARPS_M * BN; q += THREADS) {
      const int s = q / BN, p = (s / 8 * MT + i) * 8 + s % 8, col = n0 + q % BN;
      const int r = m0 + (wide ? p % tall : p), c = wide ? left + p / tall : 0;
      if (r >= outputs || col >= c_out) continue;
      size_t at = (((size_t)batch * outputs + r) * columns + c) * c_out * groups + group * c_out + col;
      if (up) {                                                       // four phases side by side
        const int quarter = c_out / 4, phase = col / quarter;
        const size_t row = ((size_t)batch * outputs + r) * 2 + phase / 2;
        at = (row * columns * 2 + 2 * c + phase % 2) * quarter + col % quarter;
      }
      float v = xs[s * OUT_ROW + q % BN];
      if (shares > 1) {                                               // a share of the sum: the rest follows elsewhere
        out[(size_t)share * x_shape[0] * outputs * columns * c_out * groups + at] = v;
        continue;
      }
      v = fused::activated(v + bias[group * c_out + col], kind, slope_out);
      if (adds & 1) v += residual[at];
      if (adds & 2) v += running[at];
      out[at] = v * scale;
    }
  }
"""

# the shares of a sum, and what follows it: one output a thread
SUM_SOURCE = r"""
  const int shares = sizes[0], count = sizes[1], channels = sizes[2], adds = sizes[3], kind = sizes[4];
  const int i = thread_position_in_grid.x;
  if (i >= count) return;
  float v = 0.0f;
  for (int share = 0; share < shares; share++) v += parts[(size_t)share * count + i];
  v = fused::activated(v + bias[i % channels], kind, slopes[1]);
  if (adds & 1) v += residual[i];
  if (adds & 2) v += running[i];
  out[i] = v * slopes[2];
"""
