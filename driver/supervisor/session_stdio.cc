#include "driver/supervisor/session_stdio.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <vector>

#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr char kTerminalMultiplexer[] = "/dev/pts/ptmx";  // of the sandbox's own devpts

absl::Status ConnectStdio(int in, int out, int err) {
  if (::dup2(in, STDIN_FILENO) < 0 || ::dup2(out, STDOUT_FILENO) < 0 ||
      ::dup2(err, STDERR_FILENO) < 0) {
    return ErrnoStatus("connect stdin, stdout, stderr");
  }
  return absl::OkStatus();
}

absl::Status SendStdio(int channel, const std::vector<int>& fds) {
  return SendPacket(channel, "stdio", fds);
}

// TIOCGPTPEER (Linux 4.13) opens the other side without its name (ioctl_tty(2)).
absl::Status ConnectTerminal(int channel) {
  ASSIGN_OR_RETURN(const Fd master, OpenFile(kTerminalMultiplexer, O_RDWR | O_NOCTTY), "terminal");
  const int unlocked = 0;
  if (::ioctl(master.get(), TIOCSPTLCK, &unlocked) != 0) return ErrnoStatus("unlock terminal");
  const Fd terminal(::ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!terminal) return ErrnoStatus("open terminal");
  if (::ioctl(terminal.get(), TIOCSCTTY, 0) != 0) return ErrnoStatus("controlling terminal");
  RETURN_IF_ERROR(ConnectStdio(terminal.get(), terminal.get(), terminal.get()));
  return SendStdio(channel, {master.get()});
}

absl::Status ConnectPipes(int channel, bool merge_stderr) {
  ASSIGN_OR_RETURN(const Pipe in, MakePipe());
  ASSIGN_OR_RETURN(const Pipe out, MakePipe());
  if (merge_stderr) {
    RETURN_IF_ERROR(ConnectStdio(in.read.get(), out.write.get(), out.write.get()));
    return SendStdio(channel, {in.write.get(), out.read.get()});
  }
  ASSIGN_OR_RETURN(const Pipe err, MakePipe());
  RETURN_IF_ERROR(ConnectStdio(in.read.get(), out.write.get(), err.write.get()));
  return SendStdio(channel, {in.write.get(), out.read.get(), err.read.get()});
}

}  // namespace

absl::Status ConnectSessionStdio(int channel, bool tty, bool merge_stderr) {
  return tty ? ConnectTerminal(channel) : ConnectPipes(channel, merge_stderr);
}

}  // namespace jenkins_agent
