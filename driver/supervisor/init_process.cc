#include "driver/supervisor/init_process.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "driver/base/pidfd.h"
#include "driver/base/status.h"
#include "driver/supervisor/init.h"

namespace jenkins_agent {
namespace {

// clone3 without CLONE_VM and without a stack of its own returns twice, as fork does. glibc has no
// wrapper; the supervisor is single-threaded, so no lock can be held by another thread.
pid_t CloneInit(int* pidfd) {
  clone_args arguments = {};
  arguments.flags = CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD;
  arguments.pidfd = reinterpret_cast<uintptr_t>(pidfd);
  arguments.exit_signal = SIGCHLD;
  return static_cast<pid_t>(::syscall(SYS_clone3, &arguments, sizeof(arguments)));
}

}  // namespace

absl::StatusOr<InitProcess> StartInit(const cgroups::Hierarchy& hierarchy,
                                      const std::vector<int>& close_in_init) {
  ASSIGN_OR_RETURN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  ASSIGN_OR_RETURN(Pipe out, MakePipe());
  ASSIGN_OR_RETURN(Pipe err, MakePipe());
  int pidfd = -1;
  const pid_t pid = CloneInit(&pidfd);
  if (pid < 0) return ErrnoStatus("clone3");
  if (pid == 0) {
    sockets.first.Reset();
    out.read.Reset();
    err.read.Reset();
    for (int fd : close_in_init) ::close(fd);
    RunInit({hierarchy, sockets.second.get(), out.write.get(), err.write.get()});
  }
  InitProcess init{pid, Fd(pidfd), std::move(sockets.first), std::move(out.read),
                   std::move(err.read)};
  if (::fcntl(init.socket.get(), F_SETFL, O_NONBLOCK) != 0) return ErrnoStatus("O_NONBLOCK");
  return init;
}

void KillSandbox(const InitProcess& init) {
  if (init.pidfd) SignalPidfd(init.pidfd.get(), SIGKILL).IgnoreError();  // SIGKILL of our own child
}

std::string ReapInit(const InitProcess& init) {
  siginfo_t info = {};
  if (::waitid(P_PIDFD, static_cast<id_t>(init.pidfd.get()), &info, WEXITED | WNOHANG) != 0) {
    return std::string(ErrnoStatus("waitid").message());
  }
  if (info.si_code == CLD_EXITED) return absl::StrCat("exit code ", info.si_status);
  return absl::StrCat("killed by signal ", info.si_status);
}

}  // namespace jenkins_agent
