// The threads of a kernel as fibers: one runs until it leaves, then the next one is entered.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

namespace stand_in {
const int STACK_BYTES = 1 << 18;
static jmp_buf home;
struct Switched {
  ucontext_t start;
  jmp_buf place;
  char* stack = new char[STACK_BYTES];                                // never freed: a fiber is used again
  bool begun, done;

  void prepare(void (*entry)()) {
    begun = done = false;
    getcontext(&start);
    start.uc_stack.ss_sp = stack;
    start.uc_stack.ss_size = STACK_BYTES;
    makecontext(&start, entry, 0);
  }
};
// not swapcontext, which asks the system for its mask of signals each time
__attribute__((noinline)) inline void leave(Switched& fiber) { if (!_setjmp(fiber.place)) _longjmp(home, 1); }
__attribute__((noinline)) inline void enter(Switched& fiber) {
  if (_setjmp(home)) return;
  if (fiber.begun) _longjmp(fiber.place, 1);
  fiber.begun = true;
  setcontext(&fiber.start);
}
}
