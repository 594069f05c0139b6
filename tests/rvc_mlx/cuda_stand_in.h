// Runs the body of a CUDA kernel on a CPU: a block's threads are fibers that meet at barriers and in warp-wide
// instructions. A warp runs as far as it can before the next one begins, in two orders. Copies to shared memory happen when they are waited for, and not before; addresses
// outside the arrays, and shared memory that nothing has written, are faults. Products of a warpgroup are made when they
// are waited for, and see what was copied and published. Every kernel is compiled with this, so there are no containers
// of the standard library here: their code would take longer than the kernel's.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stddef.h>

#include "fibers.h"

#define __device__
#define __forceinline__ inline
#define __shared__

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct uint2 { unsigned x, y; };
struct Index { unsigned x, y, z; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline unsigned __float_as_uint(float v) { unsigned r; std::memcpy(&r, &v, 4); return r; }
inline float __uint_as_float(unsigned v) { float r; std::memcpy(&r, &v, 4); return r; }
inline int __clz(int v) { return __builtin_clz(v); }
inline int min(int a, int b) { return a < b ? a : b; }

const int MOST_SHARED_BYTES = 228 * 1024;
alignas(16) float4 shared4[MOST_SHARED_BYTES / 16];
alignas(16) float4 published4[MOST_SHARED_BYTES / 16];

namespace stand_in {
struct Copy { void* to; const float* from; bool inside; };
enum Of { WORDS, HALVES, BRAINS };
struct Product { float* sums; int tiles; unsigned a[4]; const char* b; int rows; bool add; Of of; };
struct Meeting { int size = 0, arrived = 0; long generation = 0; };
template <class T> struct List {                                        // keeps its room when it is emptied
  T* items = nullptr;
  int size = 0, room = 0;
  void add(const T& one) {
    if (size == room) {
      T* larger = new T[room = room ? 2 * room : 64];
      for (int i = 0; i < size; i++) larger[i] = items[i];
      delete[] items;
      items = larger;
    }
    items[size++] = one;
  }
};
// in groups, which are taken in the order of their ends; what comes after the last end is open
template <class T> struct Groups {
  List<T> all;
  List<int> ends;
  int first = 0, taken = 0;                                             // of the oldest; how many were taken
  void close() { ends.add(all.size); }
  int left() const { return ends.size - taken; }
  int count() const { return ends.items[taken] - first; }               // in the oldest
  const T& oldest(int i) const { return all.items[first + i]; }
  void take() { first = ends.items[taken++]; }
  void clear() { all.size = ends.size = first = taken = 0; }
};
struct Thread {
  int id = 0;
  const Meeting* waits_at = nullptr;
  long since;
  Groups<Copy> copies;
  const void* row = nullptr;
  unsigned a[4], b[2];
  List<Copy> made;
  Groups<Product> products;
};
struct Fiber : Switched, Thread {};                                   // of one block after another: a stack is dear
struct Range { const char* first; const char* last; };
const int MOST_THREADS = 1024;
Range inputs[2];
Fiber* fibers[MOST_THREADS];
Meeting warps[MOST_THREADS / 32];
Meeting block;
Fiber* self;
Index block_index, grid;
int threads, shared_bytes;
void (*body)();

[[noreturn]] inline void fault(const char* what) { std::fprintf(stderr, "thread %d: %s\n", self->id, what); std::abort(); }
inline void meet(Meeting& meeting) {
  const long mine = meeting.generation;
  if (++meeting.arrived == meeting.size) { meeting.arrived = 0; meeting.generation++; return; }
  self->waits_at = &meeting, self->since = mine;
  while (meeting.generation == mine) leave(*self);
  self->waits_at = nullptr;
}
inline Fiber& lane(int i) { return *fibers[self->id / 32 * 32 + i]; }
inline void meet_warp() { meet(warps[self->id / 32]); }
inline void in_shared(const void* at, int bytes) {
  const char* p = static_cast<const char*>(at);
  const char* first = reinterpret_cast<const char*>(shared4);
  if (p < first || p + bytes > first + shared_bytes) fault("outside shared memory");
  if (reinterpret_cast<uintptr_t>(p) % 16) fault("not aligned to 16 bytes");
}
inline void in_inputs(const void* at) {
  const char* p = static_cast<const char*>(at);
  for (const Range& range : inputs) if (p >= range.first && p + 16 <= range.last) return;
  fault("reads outside its input");
}
inline float widened_slowly(uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return mantissa ? std::nanf("") : h >> 15 ? -INFINITY : INFINITY;
  const float v = exponent ? std::ldexp(1024.0f + mantissa, exponent - 25) : std::ldexp(float(mantissa), -24);
  return h >> 15 ? -v : v;
}
inline float widen(uint16_t h) {
  static float known[65536];
  static bool made = false;
  if (!made) for (int i = 0; i < 65536; i++) known[i] = widened_slowly(uint16_t(i));
  made = true;
  return known[h];
}
inline uint16_t narrow(float v) {
  const unsigned bits = __float_as_uint(v);
  const uint16_t sign = bits >> 16 & 0x8000;
  const float size = std::fabs(v);
  if (!(size < 65520.0f)) return sign | 0x7c00;
  int exponent;
  std::frexp(size, &exponent);
  const int unit = exponent - 11 < -24 ? -24 : exponent - 11;           // of the last place
  const double rounded = std::nearbyint(std::ldexp(double(size), -unit));
  const double value = std::ldexp(rounded, unit);
  if (value == 0) return sign;
  int top;
  std::frexp(value, &top);
  if (top - 1 < -14) return sign | uint16_t(std::ldexp(value, 24));
  return sign | uint16_t((top + 14) << 10 | (int(std::ldexp(value, 11 - top)) & 1023));
}
inline float brain(uint16_t h) { return __uint_as_float(unsigned(h) << 16); }
inline uint16_t narrow_brain(float v) {
  const unsigned bits = __float_as_uint(v);
  return std::isnan(v) ? 0x7fff : uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
inline float word(unsigned bits) { return __uint_as_float(bits & 0xffffe000u); }
inline void entry() {
  body();
  self->done = true;
  leave(*self);
}
inline void run_block(int order) {
  std::memset(shared4, 0xff, sizeof shared4);                           // no numbers
  std::memset(published4, 0xff, sizeof published4);
  for (int i = 0; i < threads / 32; i++) warps[i] = Meeting{32, 0, 0};
  block = Meeting{threads, 0, 0};
  for (int i = 0; i < threads; i++) {
    if (!fibers[i]) fibers[i] = new Fiber;
    Fiber& fiber = *fibers[i];
    fiber.copies.clear();
    fiber.products.clear();
    fiber.made.size = 0;
    fiber.row = nullptr;
    fiber.id = i;
    fiber.waits_at = nullptr;
    fiber.prepare(entry);
  }
  for (bool going = true; going;) {
    going = false;
    for (int warp = 0; warp < threads; warp += 32)
      for (bool moving = true; moving;) {
        moving = false;
        for (int i = warp; i < warp + 32; i++) {
          self = fibers[order ? threads - 1 - i : i];
          if (self->done || (self->waits_at == &block && block.generation == self->since)) continue;
          going = moving = true;
          enter(*self);
        }
      }
  }
  for (int i = 0; i < threads; i++) if (!fibers[i]->done) fault("waits for ever");
}
}

#define threadIdx (Index{unsigned(stand_in::self->id), 0, 0})
#define blockIdx (stand_in::block_index)
#define blockDim (Index{unsigned(stand_in::threads), 1, 1})
#define gridDim (stand_in::grid)
inline void __syncthreads() { stand_in::meet(stand_in::block); }

namespace fused {
using namespace stand_in;
inline float rounded(float v) {
  const unsigned bits = __float_as_uint(v);
  return __uint_as_float((bits + 0x1000u) & 0xffffe000u);
}
inline unsigned halves(float low, float high) {
  return narrow(low) | unsigned(narrow(high)) << 16;
}
inline unsigned brains(float low, float high) {
  return narrow_brain(low) | unsigned(narrow_brain(high)) << 16;
}
inline float widened(unsigned half) { return widen(uint16_t(half)); }
inline void copy16(void* to, const float* from, bool inside) {
  in_shared(to, 16);
  if (inside) in_inputs(from);
  self->copies.all.add({to, from, inside});
}
inline void close_group() { self->copies.close(); }
template <int NEWEST> inline void wait_for_all_but() {
  for (; self->copies.left() > NEWEST; self->copies.take())
    for (int i = 0; i < self->copies.count(); i++) {
      const Copy& copy = self->copies.oldest(i);
      if (copy.inside) std::memcpy(copy.to, copy.from, 16); else std::memset(copy.to, 0, 16);
      self->made.add(copy);
    }
}
inline void load_matrices(unsigned* r, const void* row) {
  in_shared(row, 16);
  self->row = row;
  meet_warp();
  const int me = self->id % 32;
  for (int m = 0; m < 4; m++) std::memcpy(r + m, static_cast<const char*>(lane(m * 8 + me / 4).row) + me % 4 * 4, 4);
  meet_warp();
}
template <class Value> inline void multiply(float* d, const unsigned* a, const unsigned* b, const float* c, Value value) {
  std::memcpy(self->a, a, 16);
  std::memcpy(self->b, b, 8);
  meet_warp();
  const int me = self->id % 32;
  for (int j = 0; j < 4; j++) d[j] = float(double(c[j]) + value(me / 4 + j / 2 * 8, me % 4 * 2 + j % 2));
  meet_warp();
}
inline void product(float* d, const unsigned* a, const unsigned* b, const float* c) {
  multiply(d, a, b, c, [](int row, int column) {
    double sum = 0;
    for (int k = 0; k < 8; k++)
      sum += double(word(lane(row % 8 * 4 + k % 4).a[row / 8 + k / 4 * 2])) * word(lane(column * 4 + k % 4).b[k / 4]);
    return sum;
  });
}
template <float VALUE(uint16_t)> inline void product_of_halves(float* d, const unsigned* a, const unsigned* b, const float* c) {
  multiply(d, a, b, c, [](int row, int column) {
    auto half = [](unsigned pair, int k) { return VALUE(uint16_t(pair >> k % 2 * 16)); };
    double sum = 0;
    for (int k = 0; k < 16; k++)
      sum += double(half(lane(row % 8 * 4 + k % 8 / 2).a[row / 8 + k / 8 * 2], k)) * half(lane(column * 4 + k % 8 / 2).b[k / 8], k);
    return sum;
  });
}
inline void half_product(float* d, const unsigned* a, const unsigned* b, const float* c) {
  product_of_halves<widen>(d, a, b, c);
}
inline void brain_product(float* d, const unsigned* a, const unsigned* b, const float* c) {
  product_of_halves<brain>(d, a, b, c);
}
inline void publish() {
  const char* first = reinterpret_cast<const char*>(shared4);
  for (int i = 0; i < self->made.size; i++) {
    const void* to = self->made.items[i].to;
    std::memcpy(reinterpret_cast<char*>(published4) + (static_cast<const char*>(to) - first), to, 16);
  }
  self->made.size = 0;
}
inline unsigned long long operand(const void* at, int rows) {
  in_shared(at, 16);
  return (unsigned long long)(static_cast<const char*>(at) - reinterpret_cast<const char*>(shared4)) << 16 | rows;
}
inline void begin_products() {}
inline void settle(float*) {}
inline void queue(float* sums, int tiles, const unsigned* a, unsigned long long b, bool add, Of of) {
  const char* at = reinterpret_cast<const char*>(published4) + (b >> 16);
  self->products.all.add({sums, tiles, {a[0], a[1], a[2], a[3]}, at, int(b & 0xffff), add, of});
}
template <int N> void product(float (&d)[N][4], const unsigned* a, unsigned long long b, bool add) {
  queue(d[0], N, a, b, add, WORDS);
}
template <int N> void half_product(float (&d)[N][4], const unsigned* a, unsigned long long b, bool add) {
  queue(d[0], N, a, b, add, HALVES);
}
template <int N> void brain_product(float (&d)[N][4], const unsigned* a, unsigned long long b, bool add) {
  queue(d[0], N, a, b, add, BRAINS);
}
inline float entry_of(const Product& one, const unsigned* a, int column, int k, bool left, int row) {
  if (one.of == WORDS) {
    if (left) return word(a[row / 8 + k / 4 * 2]);
    unsigned bits;
    std::memcpy(&bits, one.b + (k / 4 * one.rows + column) * 16 + k % 4 * 4, 4);
    return word(bits);
  }
  uint16_t bits;
  if (left) bits = uint16_t(a[row / 8 + k / 8 * 2] >> k % 2 * 16);
  else std::memcpy(&bits, one.b + (k / 8 * one.rows + column) * 16 + k % 8 * 2, 2);
  return one.of == HALVES ? widen(bits) : brain(bits);
}
inline void close_products() { self->products.close(); }
template <int NEWEST> inline void wait_for_products() {
  while (self->products.left() > NEWEST) {
    meet_warp();
    const int me = self->id % 32;
    for (int i = 0; i < self->products.count(); i++) {
      const Product& one = self->products.oldest(i);
      for (int j = 0; j < 4 * one.tiles; j++) {
        const int row = me / 4 + j % 4 / 2 * 8, column = j / 4 * 8 + me % 4 * 2 + j % 2;
        double sum = one.add ? one.sums[j] : 0.0f;
        for (int k = 0; k < (one.of ? 16 : 8); k++) {
          const Product& other = lane(row % 8 * 4 + (one.of ? k % 8 / 2 : k % 4)).products.oldest(i);
          sum += double(entry_of(one, other.a, column, k, true, row)) * entry_of(one, nullptr, column, k, false, row);
        }
        one.sums[j] = float(sum);
      }
    }
    meet_warp();
    self->products.take();
  }
}
}
