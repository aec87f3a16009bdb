// pid 1 follows its supervisor into death in two ways (init.h); each is shown with the other one
// out of order.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "driver/base/process.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

constexpr int kSyscallBytes = 2;  // of the instruction that a waiting process stands behind

// Makes `pid`, which waits in a system call, ask for no signal at its parent's end, and wait on: as
// a change of its ids would (prctl(2), PR_SET_PDEATHSIG), but nobody else can.
void ClearParentDeathSignal(pid_t pid) {
  ASSERT_EQ(::ptrace(PTRACE_ATTACH, pid, nullptr, nullptr), 0);
  ASSERT_EQ(::waitpid(pid, nullptr, __WALL), pid);
  user_regs_struct waiting;
  ASSERT_EQ(::ptrace(PTRACE_GETREGS, pid, nullptr, &waiting), 0);
  user_regs_struct call = waiting;
  call.rip -= kSyscallBytes;
  call.orig_rax = ~0ull;  // nothing to begin again
  call.rax = SYS_prctl;
  call.rdi = PR_SET_PDEATHSIG;
  call.rsi = 0;
  ASSERT_EQ(::ptrace(PTRACE_SETREGS, pid, nullptr, &call), 0);
  ASSERT_EQ(::ptrace(PTRACE_SINGLESTEP, pid, nullptr, nullptr), 0);
  ASSERT_EQ(::waitpid(pid, nullptr, __WALL), pid);
  ASSERT_EQ(::ptrace(PTRACE_GETREGS, pid, nullptr, &call), 0);
  EXPECT_EQ(call.rax, 0u) << "prctl was refused";
  ASSERT_EQ(::ptrace(PTRACE_SETREGS, pid, nullptr, &waiting), 0);
  ASSERT_EQ(::ptrace(PTRACE_DETACH, pid, nullptr, nullptr), 0);
}

class Death : public SupervisorTest {
 protected:
  void KillTheSupervisorAndExpectAllGone(const pb::TaskStatus& status) {
    ASSERT_EQ(::kill(status.supervisor_pid(), SIGKILL), 0);
    EXPECT_TRUE(watcher().WaitLost());
    EXPECT_TRUE(Eventually([&] { return !ProcessAlive(status.init_pid()); }));
    EXPECT_TRUE(Eventually([&] { return !ProcessAlive(status.payload_pid()); }));
    if (HasFailure()) ::kill(status.init_pid(), SIGKILL);
    DropConnection();
    ExpectAnUndisturbedStart(status);
  }
};

TEST_F(Death, APidOneThatCannotReadItsSocketEndsByTheSignal) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  ASSERT_EQ(::kill(status.init_pid(), SIGSTOP), 0);
  ASSERT_TRUE(Eventually([&] { return ProcessStopped(status.init_pid()); }));
  KillTheSupervisorAndExpectAllGone(status);
}

TEST_F(Death, APidOneThatGetsNoSignalEndsWithItsSocket) {
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(Spec({"sleep", "1000"})));
  ASSERT_NO_FATAL_FAILURE(ClearParentDeathSignal(status.init_pid()));
  EXPECT_EQ(watcher().Status().state(), pb::RUNNING);
  KillTheSupervisorAndExpectAllGone(status);
}

}  // namespace
}  // namespace jenkins_agent
