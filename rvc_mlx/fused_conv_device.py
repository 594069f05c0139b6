"""What ``fused_conv``'s CUDA source takes from a GPU: copies to shared memory, products on tensor cores, halves.

A product is one warp's (``mma``), or, from compute capability 9.0 on, of four warps together (``wgmma``).
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
// d = a * b + c of 16 x 8 x 16 in half precision
__device__ __forceinline__ void half_product(float* d, const unsigned* a, const unsigned* b, const float* c) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ void brain_product(float* d, const unsigned* a, const unsigned* b, const float* c) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}
__device__ __forceinline__ unsigned brains(float low, float high) {
  unsigned r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r;
}
__device__ __forceinline__ unsigned halves(float low, float high) {
  unsigned r; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low)); return r;
}
__device__ __forceinline__ float widened(unsigned half) {             // the low half
  float r;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.f32.f16 %0, low; }" : "=f"(r) : "r"(half)); return r;
}
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define WARPGROUPS 1
// where an operand [16 bytes of k][rows][16 bytes] lies in shared memory
typedef unsigned long long Operand;
__device__ __forceinline__ Operand operand(const void* at, int rows) {
  return ((unsigned)__cvta_generic_to_shared(at) & 0x3ffff) >> 4 | (Operand)rows << 16 | 8ull << 32;
}
// copies are made by threads, a warpgroup's products read by another way
__device__ __forceinline__ void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void close_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int NEWEST> __device__ __forceinline__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(NEWEST) : "memory");
}
// no use of a value may move before its product is done
__device__ __forceinline__ void settle(float* d) {
  asm volatile("" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) :: "memory");
}
WARPGROUP_PRODUCTS
#else
#define WARPGROUPS 0
__device__ __forceinline__ void publish() {}
__device__ __forceinline__ void begin_products() {}
__device__ __forceinline__ void close_products() {}
template <int NEWEST> __device__ __forceinline__ void wait_for_products() {}
__device__ __forceinline__ void settle(float*) {}
typedef unsigned long long Operand;
__device__ __forceinline__ Operand operand(const void*, int) { return 0; }
template <int N> __device__ __forceinline__ void product(float (&)[N][4], const unsigned*, Operand, bool) {}
template <int N> __device__ __forceinline__ void half_product(float (&)[N][4], const unsigned*, Operand, bool) {}
template <int N> __device__ __forceinline__ void brain_product(float (&)[N][4], const unsigned*, Operand, bool) {}
#endif
__device__ __forceinline__ void close_group() { asm volatile("cp.async.commit_group;"); }
template <int NEWEST> __device__ __forceinline__ void wait_for_all_but() {
  asm volatile("cp.async.wait_group %0;" :: "n"(NEWEST));
}
}
"""

COMMON = r"""
namespace fused {
constexpr float REST_SCALE = 2048.0f;
__device__ __forceinline__ float activated(float v, int kind, float slope) {
  if (kind == 1) return fmaxf(v, v * slope);
  if (kind == 2) return 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
  if (kind == 3) return tanhf(v);
  return v;
}
// two values side by side, and back
template <bool BRAIN> __device__ __forceinline__ unsigned narrowed(float low, float high) {
  if constexpr (BRAIN) return brains(low, high);
  else return halves(low, high);
}
template <bool BRAIN> __device__ __forceinline__ float2 wide_pair(unsigned both) {
  if constexpr (BRAIN) return make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000u));
  else return make_float2(widened(both), widened(both >> 16));
}
template <bool BRAIN> __device__ __forceinline__ unsigned leaky_pair(unsigned both, float slope) {
  const float2 v = wide_pair<BRAIN>(both);
  return narrowed<BRAIN>(fmaxf(v.x, v.x * slope), fmaxf(v.y, v.y * slope));
}
}
"""


def _warpgroup_products(channels: int) -> str:
    """The three products of 64 x ``channels`` by four warps at once; ``b`` is in shared memory."""
    count = channels // 2
    sums = ", ".join(f"%{i}" for i in range(count))
    places = ", ".join(f'"+f"(d[{i // 4}][{i % 4}])' for i in range(count))
    a, b, adds = (count + i for i in (0, 4, 5))
    operands = f"{{%{a}, %{a + 1}, %{a + 2}, %{a + 3}}}, %{b}"
    given = '"r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add)'

    def function(name: str, shape: str, ends: str) -> str:
        return f"""
__device__ __forceinline__ void {name}(float (&d)[{channels // 8}][4], const unsigned* a, Operand b, bool add) {{
  asm volatile("{{ .reg .pred p; setp.ne.b32 p, %{adds}, 0;"
      "wgmma.mma_async.sync.aligned.m64n{channels}{shape} {{{sums}}}, {operands}, p, 1, 1{ends}; }}"
      : {places} : {given});
}}"""

    kinds = ("product", "k8.f32.tf32.tf32", ""), ("half_product", "k16.f32.f16.f16", ", 0")
    return "".join(function(*kind) for kind in (*kinds, ("brain_product", "k16.f32.bf16.bf16", ", 0")))


HEADER = DEVICE.replace("WARPGROUP_PRODUCTS", "".join(map(_warpgroup_products, (16, 32, 48, 64, 128)))) + COMMON
