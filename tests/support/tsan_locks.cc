// Tells ThreadSanitizer of the locks inside Debian's gRPC, whose archives are not instrumented:
// without them all that one thread hands to another through gRPC looks like a race. Only in the
// build tsan, where the linker turns calls of absl::Mutex into calls of these (CMakeLists.txt,
// --wrap).
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

// All that gRPC calls: nm -u libgrpc_unsecure.a libgrpc++_unsecure.a libgpr.a
#define MUTEX "_ZN4absl7debian35Mutex"
#define CONDVAR "_ZN4absl7debian37CondVar"

namespace jenkins_agent {
namespace {

using absl::CondVar;
using absl::Duration;
using absl::Mutex;
using absl::Time;

}  // namespace

void RealLock(Mutex*) asm("__real_" MUTEX "4LockEv");
void RealUnlock(Mutex*) asm("__real_" MUTEX "6UnlockEv");
bool RealTryLock(Mutex*) asm("__real_" MUTEX "7TryLockEv");
void RealWait(CondVar*, Mutex*) asm("__real_" CONDVAR "4WaitEPNS0_5MutexE");
bool RealWaitFor(CondVar*, Mutex*,
                 Duration) asm("__real_" CONDVAR "15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
bool RealWaitUntil(CondVar*, Mutex*,
                   Time) asm("__real_" CONDVAR "16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");

void Lock(Mutex*) asm("__wrap_" MUTEX "4LockEv");
void Unlock(Mutex*) asm("__wrap_" MUTEX "6UnlockEv");
bool TryLock(Mutex*) asm("__wrap_" MUTEX "7TryLockEv");
void Wait(CondVar*, Mutex*) asm("__wrap_" CONDVAR "4WaitEPNS0_5MutexE");
bool WaitFor(CondVar*, Mutex*,
             Duration) asm("__wrap_" CONDVAR "15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE");
bool WaitUntil(CondVar*, Mutex*,
               Time) asm("__wrap_" CONDVAR "16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE");

void Lock(Mutex* mutex) {
  RealLock(mutex);
  __tsan_acquire(mutex);
}

void Unlock(Mutex* mutex) {
  __tsan_release(mutex);
  RealUnlock(mutex);
}

bool TryLock(Mutex* mutex) {
  const bool locked = RealTryLock(mutex);
  if (locked) __tsan_acquire(mutex);
  return locked;
}

void Wait(CondVar* cond, Mutex* mutex) {
  __tsan_release(mutex);
  RealWait(cond, mutex);
  __tsan_acquire(mutex);
}

bool WaitFor(CondVar* cond, Mutex* mutex, Duration limit) {
  __tsan_release(mutex);
  const bool timed_out = RealWaitFor(cond, mutex, limit);
  __tsan_acquire(mutex);
  return timed_out;
}

bool WaitUntil(CondVar* cond, Mutex* mutex, Time deadline) {
  __tsan_release(mutex);
  const bool timed_out = RealWaitUntil(cond, mutex, deadline);
  __tsan_acquire(mutex);
  return timed_out;
}

}  // namespace jenkins_agent
