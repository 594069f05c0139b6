// Runs a Metal kernel on a CPU: a threadgroup's threads are fibers that meet at barriers and, by simdgroups, in
// operations on simdgroup matrices; in either order of threads. Every access through a pointer is checked. Faults are:
// an address outside its array or not aligned; a word of threadgroup memory that two threads use between two barriers
// and one of them writes; a result written twice; a barrier or matrix operation that not all threads reach; pointers
// of different address spaces in one another's place. Threadgroup memory starts as NaN. Every kernel is compiled with
// this, so there are no containers here: their code would take longer than the kernel's.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <type_traits>

#include "fibers.h"

typedef unsigned uint;
typedef unsigned long ulong;
struct uint3 { uint x, y, z; };
struct ulong2 { ulong x, y; ulong2(ulong both) : x(both), y(both) {} };
struct alignas(16) float4 {
  float v[4];
  float4() {}
  explicit float4(float all) : v{all, all, all, all} {}
};
inline float4 operator*(float4 a, float b) { for (float& v : a.v) v *= b; return a; }

namespace stand_in {
enum Space { device, constant, threadgroup };
struct Mark { int writer = -1, reader = -1; long written = -1, read = -1; bool many = false; };
struct Memory { char *first, *last; bool result; Mark* marks; };       // marks: one for each word, or null
struct Meeting { int size, arrived = 0; long generation = 0, line = 0; };
struct Operation { const void* address; long row; int line; float a[2], b[2]; };
struct Fiber : Switched {
  int id, arrays;
  long barriers, operations;
  Operation operation[2];                                             // the newest, and the one before
};
const int MOST_THREADS = 1024, MOST_BUFFERS = 31, MOST_ARRAYS = 16;
Fiber* fibers[MOST_THREADS];                                          // of one threadgroup after another
Meeting simdgroups[MOST_THREADS / 32];
Meeting all{0};
Memory buffers[MOST_BUFFERS];
struct Array { char* bytes; Memory memory; };
Array arrays[MOST_ARRAYS];
int arrays_made;
Fiber* self;
uint3 position, groups;
int threads;
long moves, declared;                                                 // declared: bytes of threadgroup memory
char failure[200];

inline void fault(const char* what) {
  std::snprintf(failure, sizeof failure, "thread %d of threadgroup %u, %u, %u: %s", self->id, position.x, position.y, position.z, what);
  for (;;) leave(*self);
}
inline void meet(Meeting& meeting, int line) {
  const long mine = meeting.generation;
  if (meeting.arrived++ && meeting.line != line) fault("meets others at another line");
  meeting.line = line;
  moves++;
  if (meeting.arrived == meeting.size) { meeting.arrived = 0; meeting.generation++; return; }
  while (meeting.generation == mine) leave(*self);
}
// actor: a thread, or below -1 a simdgroup, whose matrices nobody knows the lanes of
inline void check(Memory* memory, const void* at, int bytes, bool writes, int actor) {
  const char* p = static_cast<const char*>(at);
  if (p < memory->first || p + bytes > memory->last) fault(writes ? "writes outside an array" : "reads outside an array");
  if (reinterpret_cast<uintptr_t>(p) % bytes) fault("not aligned");
  if (!memory->marks) return;
  for (int i = 0; i < bytes; i += 4) {
    Mark& mark = memory->marks[(p - memory->first + i) / 4];
    const long now = self->barriers;
    if (memory->result) {
      if (writes && mark.writer != -1) fault("a result is written twice");
    } else {
      if (mark.written == now && (mark.writer != actor || actor < 0)) fault("uses what another wrote since the last barrier");
      if (writes && mark.read == now && (mark.many || mark.reader != actor)) fault("writes what another read since the last barrier");
    }
    if (writes) { mark.writer = actor; mark.written = now; continue; }
    mark.many = mark.read == now && (mark.many || mark.reader != actor);
    mark.reader = actor;
    mark.read = now;
  }
}
template <class T> struct Reference {
  T* at; Memory* memory;
  operator T() const { check(memory, at, sizeof(T), false, self->id); return *at; }
  void operator=(T value) { check(memory, at, sizeof(T), true, self->id); *at = value; }
  void operator=(const Reference& other) { *this = T(other); }
  void operator+=(T value) { *this = T(*this) + value; }
};
template <int SPACE, class T> struct Pointer {
  T* at; Memory* memory;
  Pointer(T* a, Memory* m) : at(a), memory(m) {}
  template <class U, std::enable_if_t<std::is_same<const U, T>::value, int> = 0>
  Pointer(Pointer<SPACE, U> other) : at(other.at), memory(other.memory) {}
  template <class U, std::enable_if_t<!std::is_same<const U, T>::value, int> = 0>
  explicit Pointer(Pointer<SPACE, U> other) : at((T*)other.at), memory(other.memory) {}
  Pointer operator+(long n) const { return {(T*)((uintptr_t)at + n * (long)sizeof(T)), memory}; }
  Reference<std::remove_const_t<T>> item(std::false_type) const { return {at, memory}; }
  std::remove_const_t<T> item(std::true_type) const { return Reference<std::remove_const_t<T>>{(std::remove_const_t<T>*)at, memory}; }
  auto operator*() const { return item(std::is_const<T>()); }
  auto operator[](long n) const { return *(*this + n); }
};
struct Argument {
  Memory* memory;
  template <int SPACE, class T> operator Pointer<SPACE, T>() const { return {(T*)memory->first, memory}; }
};
inline void add_array(long bytes) {
  if (arrays_made == MOST_ARRAYS) fault("more arrays of threadgroup memory than the stand-in holds");
  declared += bytes;
  Array& one = arrays[arrays_made++];
  one.bytes = new char[bytes + 16];
  char* first = one.bytes + (16 - (uintptr_t)one.bytes % 16);
  one.memory = {first, first + bytes, false, new Mark[bytes / 4]};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (long i = 0; i < bytes; i += 4) std::memcpy(first + i, &nan, 4);
}
inline void drop_arrays() {
  for (; arrays_made; arrays_made--) {
    delete[] arrays[arrays_made - 1].bytes;
    delete[] arrays[arrays_made - 1].memory.marks;
  }
}
template <class T> Pointer<threadgroup, T> array(long count) {
  const int mine = self->arrays++;
  if (mine == arrays_made) add_array(count * sizeof(T));
  return {(T*)arrays[mine].memory.first, &arrays[mine].memory};
}
void (*body)();
inline void entry() {
  body();
  self->done = true;
  moves++;
  for (;;) leave(*self);
}
inline void run_threadgroup(bool reversed) {
  drop_arrays();
  declared = 0;
  for (int i = 0; i < threads; i += 32) simdgroups[i / 32] = Meeting{threads - i < 32 ? threads - i : 32};
  all = Meeting{threads};
  for (int i = 0; i < threads; i++) {
    if (!fibers[i]) fibers[i] = new Fiber;
    Fiber& fiber = *fibers[i];
    fiber.id = i;
    fiber.arrays = fiber.barriers = fiber.operations = 0;
    fiber.prepare(entry);
  }
  for (bool going = true; going && !failure[0];) {
    going = false;
    const long before = moves;
    for (int i = 0; i < threads && !failure[0]; i++) {
      self = fibers[reversed ? threads - 1 - i : i];
      if (!self->done) { going = true; enter(*self); }
    }
    if (going && !failure[0] && moves == before)
      std::snprintf(failure, sizeof failure, "threads wait for others that never come");
  }
}
// all lanes of a simdgroup in the same operation; returns its own part of it
inline Operation& together(Operation mine) {
  Operation& kept = self->operation[self->operations++ % 2];
  kept = mine;
  meet(simdgroups[self->id / 32], mine.line);
  const Operation& first = fibers[self->id / 32 * 32]->operation[(self->operations - 1) % 2];
  if (first.address != mine.address || first.row != mine.row) fault("a matrix differs between the lanes of a simdgroup");
  return kept;
}
inline const Operation& lane(int i) { return fibers[self->id / 32 * 32 + i]->operation[(self->operations - 1) % 2]; }
inline int actor() { return -2 - self->id / 32; }
}

using namespace stand_in;
enum class mem_flags { mem_none, mem_threadgroup };
inline void barrier(mem_flags flags, int line) {
  meet(all, line);
  if (flags == mem_flags::mem_threadgroup) self->barriers++;
}
#define threadgroup_barrier(flags) barrier(flags, __LINE__)

// which lane has which elements is not documented: kernels can only load, multiply and store
template <class T, int COLUMNS, int ROWS> class simdgroup_matrix {
  static_assert(std::is_same<T, float>::value && COLUMNS == 8 && ROWS == 8, "8 x 8 floats");
 public:
  float mine[2];                                                      // row-major: elements i and i + 32 of lane i
};
typedef simdgroup_matrix<float, 8, 8> Matrix;
template <class T, int COLUMNS, int ROWS> Matrix make_filled_simdgroup_matrix(float v) { Matrix m; m.mine[0] = m.mine[1] = v; return m; }
template <int SPACE, class T> void load_matrix(int line, Matrix& m, Pointer<SPACE, T> from, ulong row) {
  together({from.at, long(row), line});
  for (int i = 0; i < 2; i++) {
    const long e = self->id % 32 + 32 * i;
    const Pointer<SPACE, T> p = from + (e / 8 * row + e % 8);
    check(p.memory, p.at, 4, false, actor());
    m.mine[i] = *p.at;
  }
}
template <int SPACE> void store_matrix(int line, const Matrix& m, Pointer<SPACE, float> to, ulong row) {
  together({to.at, long(row), line});
  for (int i = 0; i < 2; i++) {
    const long e = self->id % 32 + 32 * i;
    const Pointer<SPACE, float> p = to + (e / 8 * row + e % 8);
    check(p.memory, p.at, 4, true, actor());
    *p.at = m.mine[i];
  }
}
inline void multiply_matrices(int line, Matrix& d, const Matrix& a, const Matrix& b, const Matrix& c) {
  together({nullptr, 0, line, {a.mine[0], a.mine[1]}, {b.mine[0], b.mine[1]}});
  for (int i = 0; i < 2; i++) {
    const int e = self->id % 32 + 32 * i;
    float sum = c.mine[i];
    for (int k = 0; k < 8; k++) {
      const int left = e / 8 * 8 + k, right = k * 8 + e % 8;
      sum += lane(left % 32).a[left / 32] * lane(right % 32).b[right / 32];
    }
    d.mine[i] = sum;
  }
}
#define simdgroup_load(...) load_matrix(__LINE__, __VA_ARGS__)
#define simdgroup_store(...) store_matrix(__LINE__, __VA_ARGS__)
#define simdgroup_multiply_accumulate(...) multiply_matrices(__LINE__, __VA_ARGS__)

namespace metal {
inline float max(float a, float b) { return a < b ? b : a; }
inline float4 max(float4 a, const float4& b) { for (int i = 0; i < 4; i++) a.v[i] = max(a.v[i], b.v[i]); return a; }
inline float clamp(float v, float low, float high) { return v < low ? low : v > high ? high : v; }
namespace precise { using std::exp; using std::tanh; }
}
