"""The CUDA source of ``fused_conv``: an implicit matrix product on tensor cores, channels last.

A block makes BM outputs (frames, or a patch of an image) by BN channels. It walks over chunks of BK input
channels and, within a chunk, over the kernel's taps: the inputs of a chunk, halo included, lie in shared memory once
for all taps, and the weights of the next two taps are on their way while one is multiplied.

float32 (SPLIT) is kept by three products in half precision: each operand is split into a half and what is left of it,
times 2^11, as another half: 22 bits together. ``head * head + (rest * head + head * rest)`` is summed. Tensor cores cut
off the low bits of a running sum, so every 16-deep product of heads is added to the running sum outside; the sum of the
corrections, 2^11 times smaller, stays in the tensor cores (Ootomo and Yokota, "Recovering single precision accuracy
from Tensor Cores while surpassing the FP32 theoretical peak performance", 2022). Half precision has a small range:
weights are scaled by a power of two for each layer. Inputs beyond 65504 give infinity, and where all of a layer's are
below 10^-4 their rounding is coarser than float32's.

In half precision (HALF: float16, or bfloat16 with BRAIN) arrays are halves too. Each pair has one product; sums are in
float32, and rounded once, after all that follows them.

Template values: BM, BN, BK (16 or 32), WARPS_M, WARPS_N and KIND (0: TF32, 1: float32, 2: float16, 3: bfloat16). All
else is an argument, because each compiled variant costs seconds at first use: ``wide`` is the width of a patch (a power
of two; 0 in one dimension), ``up`` a transposed 2-D convolution of stride 2 as four phases.
"""

SOURCE = r"""
  using namespace fused;
  constexpr bool SPLIT = KIND == 1, HALF = KIND >= 2, BRAIN = KIND == 3;
  constexpr int PACK = HALF ? 2 : 1;                                  // values in a word of four bytes
  constexpr int THREADS = 32 * WARPS_M * WARPS_N;
  // four warps make 64 outputs of all channels together where a GPU can do that, else each a part of both
  constexpr bool TOGETHER = WARPGROUPS && WARPS_M * WARPS_N % 4 == 0 && BM % (16 * WARPS_M * WARPS_N) == 0;
  constexpr int MT = BM / (TOGETHER ? WARPS_M * WARPS_N : WARPS_M) / 16;  // a warp's tiles of 16 x 8
  constexpr int NT = BN / (TOGETHER ? 1 : WARPS_N) / 8;
  constexpr int GROUP = NT % 4 == 0 ? 4 : NT % 2 == 0 ? 2 : 1;        // of them side by side, to hide latency
  constexpr int ROW = BK + 4;                                         // padded: eight rows meet in no bank
  const int taps = sizes[0], dilation = sizes[1], padding = sizes[2], c_in = sizes[3], c_out = sizes[4];
  const int wide = sizes[11], up = sizes[12], side = up ? 2 : 3, pitch = wide + side - 1;
  const int shift = wide ? 31 - __clz(wide) : 0, tall = BM >> shift;
  const int c_padded = sizes[5], groups = sizes[6], stride = sizes[7], adds = sizes[8], kind = sizes[9];
  const float slope_in = slopes[0], slope_out = slopes[1], scale = slopes[2];
  const float unscale = slopes[3];                                    // undoes the scale of the weights
  const int inputs = x_shape[1], columns = wide ? x_shape[2] : 1;
  const int outputs = wide ? inputs : (inputs + 2 * padding - dilation * (taps - 1) - 1) / stride + 1;
  const int rows = wide ? pitch * (tall + side - 1) : (BM - 1) * stride + (taps - 1) * dilation + 1;
  constexpr int HALF_ROW = BK + 8;
  extern __shared__ float4 shared4[];
  // [raws][rows][BK]: as it comes. With one tap a chunk is used up in one step: two are on their way
  const int raws = taps == 1 ? 2 : 1, raw_size = rows * BK / PACK;
  float* raw = reinterpret_cast<float*>(shared4);
  float* xs = raw + raws * raw_size;                                  // [rows][ROW]: activated
  unsigned short* xh = reinterpret_cast<unsigned short*>(xs);         // or [2][rows][HALF_ROW]: heads, rests; or halves
  // three times [BK / 4][BN][4], or of halves [2][BK / 8][BN][8]: what eight rows have side by side lies together
  constexpr int W_SIZE = BN * BK / PACK;
  float* ws = xs + rows * (SPLIT ? HALF_ROW : HALF ? HALF_ROW / 2 : ROW);
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  const int wm = TOGETHER ? warp / 4 * MT * 64 + warp % 4 * 16 : warp % WARPS_M * MT * 16;
  constexpr int NEXT_M = TOGETHER ? 64 : 16;                          // from a warp's tile to its next
  const int wn = TOGETHER ? 0 : (warp / WARPS_M) * NT * 8;
  const int blocks_n = c_padded / BN, group = blockIdx.y / blocks_n, n0 = (blockIdx.y % blocks_n) * BN;
  const int shares = sizes[10], batch = blockIdx.z / shares, share = blockIdx.z % shares, channels = c_in * groups;
  const int patches = wide ? columns / wide : 1;
  const int m0 = wide ? blockIdx.x / patches * tall : blockIdx.x * BM;  // first row of the image, or first frame
  const int left = blockIdx.x % patches * wide;
  const int words = channels / PACK;
  const float* xb = reinterpret_cast<const float*>(x) + (size_t)batch * inputs * columns * words + group * c_in / PACK;
  // few outputs of many channels: blocks share the input channels of one output
  const int chunks = c_in / BK, steps = chunks * taps;
  const int first_step = chunks * share / shares * taps, last_step = chunks * (share + 1) / shares * taps;
  const size_t total_size = (size_t)gridDim.z / shares * outputs * columns * c_out * groups;
  // each thread copies one column of 16 bytes of every LANES-th row
  constexpr int PARTS = BK / (4 * PACK), LANES = THREADS / PARTS;
  const int my_row = tid / PARTS, my_part = tid % PARTS * 4;
  auto load_x = [&](int chunk) {
    const float* from = xb + chunk * BK / PACK + my_part;
    float* to = raw + (chunk & (raws - 1)) * raw_size + tid * 4;
    if (wide) {
      const int inverse = (65535 + pitch) / pitch;                    // row / pitch, exact for fewer than 1000 rows
      #pragma unroll 2
      for (int row = my_row; row < rows; row += LANES, to += THREADS * 4) {
        const int down = row * inverse >> 16, r = m0 + down - padding, c = left + row - down * pitch - padding;
        const bool inside = r >= 0 && r < inputs && c >= 0 && c < columns;
        copy16(to, from + (inside ? (size_t)r * columns + c : 0) * words, inside);
      }
    } else {
      int t = m0 * stride - padding + my_row;
      const float* at = from + (ptrdiff_t)t * words;
      const int step = LANES * words;
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
      if constexpr (HALF) {
        if (slope_in != 1.0f) {
          auto one = [&](float& both) { both = __uint_as_float(leaky_pair<BRAIN>(__float_as_uint(both), slope_in)); };
          one(v.x); one(v.y); one(v.z); one(v.w);
        }
        *reinterpret_cast<float4*>(xh + row * HALF_ROW + my_part * 2) = v;
        continue;
      }
      v.x = fmaxf(v.x, v.x * slope_in); v.y = fmaxf(v.y, v.y * slope_in);
      v.z = fmaxf(v.z, v.z * slope_in); v.w = fmaxf(v.w, v.w * slope_in);
      if constexpr (SPLIT) {
        const unsigned one = halves(v.x, v.y), two = halves(v.z, v.w);
        auto rest = [](float value, unsigned head) { return (value - widened(head)) * REST_SCALE; };
        unsigned short* half = xh + row * HALF_ROW + my_part;
        *reinterpret_cast<uint2*>(half) = make_uint2(one, two);
        *reinterpret_cast<uint2*>(half + rows * HALF_ROW) =
            make_uint2(halves(rest(v.x, one), rest(v.y, one >> 16)), halves(rest(v.z, two), rest(v.w, two >> 16)));
      } else *reinterpret_cast<float4*>(to) = make_float4(rounded(v.x), rounded(v.y), rounded(v.z), rounded(v.w));
    }
  };
  // weights come as [group][chunk][tap][block], as they lie in shared memory
  const size_t w_stride = (size_t)blocks_n * W_SIZE;
  const float* w_next = w + (size_t)group * steps * w_stride + (size_t)(blockIdx.y % blocks_n) * W_SIZE + tid * 4
                        + (size_t)first_step * w_stride;
  int w_step = first_step, w_slot = 0;
  auto load_w = [&]() {
    if (w_step < last_step) {
      float* to = ws + w_slot * W_SIZE + tid * 4;
      #pragma unroll
      for (int j = 0; j < W_SIZE; j += THREADS * 4)
        if (W_SIZE % (THREADS * 4) == 0 || tid * 4 + j < W_SIZE) copy16(to + j, w_next + j, true);
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
    const int p = wm + i * NEXT_M + lane % 16;
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
    if constexpr (TOGETHER) publish();
    __syncthreads();
    if (tap == 0) {
      split_x(chunk);
      __syncthreads();
      if (step + raws * taps < last_step) load_x(chunk + raws);
    }
    load_w();
    const int offset = wide ? tap_row * pitch + tap_column : tap * dilation;
    const float* xt = xs + offset * ROW + a_part * 4;
    const unsigned short* xht = xh + offset * HALF_ROW + a_part * 8;
    const float* wt = ws + slot * W_SIZE;
    const unsigned short* wht = reinterpret_cast<const unsigned short*>(wt);
    if constexpr (TOGETHER) {
      constexpr int DEEP = BK / 16;
      unsigned a[DEEP][MT][2][4];                                     // heads and rests, or eight columns each
      float part[MT][NT][4];
      #pragma unroll
      for (int k = 0; k < DEEP; k++)
        #pragma unroll
        for (int i = 0; i < MT; i++)
          #pragma unroll
          for (int d = 0; d < 2; d++)
            if constexpr (SPLIT) load_matrices(a[k][i][d], xht + (d * rows + a_row[i]) * HALF_ROW + k * 16);
            else if constexpr (HALF) {
              if (d == 0) load_matrices(a[k][i][0], xht + a_row[i] * HALF_ROW + k * 16);
            } else load_matrices(a[k][i][d], xt + a_row[i] * ROW + k * 16 + d * 8);
      begin_products();
      #pragma unroll
      for (int k = 0; k < DEEP; k++) {
        #pragma unroll
        for (int i = 0; i < MT; i++)
          if constexpr (SPLIT) half_product(part[i], a[k][i][0], operand(wht + k * 16 * BN, BN), false);
          else if constexpr (BRAIN) brain_product(sum[i], a[k][i][0], operand(wht + k * 16 * BN, BN), true);
          else if constexpr (HALF) half_product(sum[i], a[k][i][0], operand(wht + k * 16 * BN, BN), true);
          else
            #pragma unroll
            for (int d = 0; d < 2; d++)
              product(sum[i], a[k][i][d], operand(wt + (k * 16 + d * 8) * BN, BN), true);
        close_products();
        if constexpr (!SPLIT) continue;
        if (k == 0) {                                                 // all corrections, while the first sum is added
          #pragma unroll
          for (int of = 0; of < DEEP; of++)
            #pragma unroll
            for (int i = 0; i < MT; i++) {
              half_product(correction[i], a[of][i][0], operand(wht + (BK + of * 16) * BN, BN), true);
              half_product(correction[i], a[of][i][1], operand(wht + of * 16 * BN, BN), true);
            }
          close_products();
          wait_for_products<1>();
        } else wait_for_products<0>();
        #pragma unroll
        for (int i = 0; i < MT; i++)
          #pragma unroll
          for (int n = 0; n < NT; n++) {
            settle(part[i][n]);
            #pragma unroll
            for (int j = 0; j < 4; j++) sum[i][n][j] += part[i][n][j];
          }
        if (k + 1 < DEEP) begin_products();
      }
      if (!SPLIT || DEEP == 1) wait_for_products<0>();
      #pragma unroll
      for (int i = 0; i < MT; i++)
        #pragma unroll
        for (int n = 0; n < NT; n++) settle(SPLIT ? correction[i][n] : sum[i][n]);
    } else
    #pragma unroll
    for (int k = 0; k < BK; k += 16) {
      #pragma unroll
      for (int n = 0; n < NT; n += GROUP) {
        float part[MT][GROUP][4];
        #pragma unroll
        for (int turn = 0; turn < (SPLIT ? 3 : HALF ? 1 : 2); turn++) {  // head * head, head * rest, rest * head
          const int left = SPLIT ? turn / 2 : turn, right = SPLIT ? turn % 2 : turn;
          unsigned a[MT][4], b[GROUP][2];
          #pragma unroll
          for (int i = 0; i < MT; i++)
            if (SPLIT || HALF) load_matrices(a[i], xht + (left * rows + a_row[i]) * HALF_ROW + k);
            else load_matrices(a[i], xt + a_row[i] * ROW + k + left * 8);
          #pragma unroll
          for (int m = 0; m < GROUP; m += 2) {
            unsigned four[4];
            const int row = b_row + (n + m) * 8;
            if (SPLIT || HALF) load_matrices(four, wht + (right * BK + k + b_part * 8) * BN + row * 8);
            else load_matrices(four, wt + (k + right * 8 + b_part * 4) * BN + row * 4);
            #pragma unroll
            for (int j = 0; j < 4; j++)
              if (m + j / 2 < GROUP) b[m + j / 2][j % 2] = four[j];
          }
          #pragma unroll
          for (int i = 0; i < MT; i++)                                // tiles inside: neighbours do not wait
            #pragma unroll
            for (int m = 0; m < GROUP; m++)
              if (BRAIN) brain_product(sum[i][n + m], a[i], b[m], sum[i][n + m]);
              else if (HALF) half_product(sum[i][n + m], a[i], b[m], sum[i][n + m]);
              else if (!SPLIT) product(sum[i][n + m], a[i], b[m], sum[i][n + m]);
              else if (turn == 0) half_product(part[i][m], a[i], b[m], zeros);
              else half_product(correction[i][n + m], a[i], b[m], correction[i][n + m]);
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
          v.x = (v.x + correction[i][n][2 * h] * (1.0f / REST_SCALE)) * unscale;
          v.y = (v.y + correction[i][n][2 * h + 1] * (1.0f / REST_SCALE)) * unscale;
        }
        const int p = wm + i * NEXT_M + lane / 4 + h * 8;
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
        const float* from = extra ? reinterpret_cast<const float*>(running) : reinterpret_cast<const float*>(residual);
        if constexpr (HALF) {
          const unsigned short* more = reinterpret_cast<const unsigned short*>(from) + at;
          if (whole) {
            const uint2 both = *reinterpret_cast<const uint2*>(more);
            const float2 low = wide_pair<BRAIN>(both.x), high = wide_pair<BRAIN>(both.y);
            v.x += low.x; v.y += low.y; v.z += high.x; v.w += high.y;
          } else for (int j = 0; j < count; j++) four[j] += wide_pair<BRAIN>(more[j]).x;
          continue;
        }
        const float* more = from + at;
        if (whole) {
          const float4 w4 = *reinterpret_cast<const float4*>(more);
          v.x += w4.x; v.y += w4.y; v.z += w4.z; v.w += w4.w;
        } else for (int j = 0; j < count; j++) four[j] += more[j];
      }
      v.x *= scale; v.y *= scale; v.z *= scale; v.w *= scale;
    }
    if (HALF && shares == 1) {
      unsigned short* to = reinterpret_cast<unsigned short*>(out) + at;
      if (whole) *reinterpret_cast<uint2*>(to) = make_uint2(narrowed<BRAIN>(v.x, v.y), narrowed<BRAIN>(v.z, v.w));
      else for (int j = 0; j < count; j++) to[j] = narrowed<BRAIN>(four[j], 0.0f);
      continue;
    }
    float* to = reinterpret_cast<float*>(out) + at;
    if (whole) *reinterpret_cast<float4*>(to) = v;
    else for (int j = 0; j < count; j++) to[j] = four[j];
  }
"""

# the shares of a sum, and what follows it: one output a thread
SUM_SOURCE = r"""
  using namespace fused;
  const int shares = sizes[0], count = sizes[1], channels = sizes[2], adds = sizes[3], activation = sizes[4];
  const int kind = sizes[5];                                          // as KIND
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float v = 0.0f;
  for (int share = 0; share < shares; share++) v += reinterpret_cast<const float*>(parts)[(size_t)share * count + i];
  v = activated(v + bias[i % channels], activation, slopes[1]);
  auto half = [&](const void* of) { return static_cast<const unsigned short*>(of)[i]; };
  auto more = [&](const void* of) {
    if (kind < 2) return static_cast<const float*>(of)[i];
    return kind == 2 ? wide_pair<false>(half(of)).x : wide_pair<true>(half(of)).x;
  };
  if (adds & 1) v += more(residual);
  if (adds & 2) v += more(running);
  v *= slopes[2];
  if (kind < 2) reinterpret_cast<float*>(out)[i] = v;
  else reinterpret_cast<unsigned short*>(out)[i] = kind == 2 ? narrowed<false>(v, 0.0f) : narrowed<true>(v, 0.0f);
"""
