#include "driver/base/subprocess.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/process/args.hpp>
#include <boost/process/child.hpp>
#include <boost/process/error.hpp>
#include <boost/process/exe.hpp>
#include <boost/process/extend.hpp>
#include <cerrno>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/pidfd.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

namespace bp = boost::process;
using Clock = std::chrono::steady_clock;

constexpr absl::string_view kOwnFds = "/proc/self/fd/";

// Everything the child needs, made before the fork: between fork and exec it only makes system
// calls. Descriptors lie above every number of `map`, so that no dup2 overwrites one still needed.
struct Plan {
  std::string program;
  std::vector<char*> argv;
  std::vector<char*> env;
  std::vector<Fd> held = {};
  std::vector<std::pair<int, int>> map = {};  // from, to
  int error_fd = -1;                          // errno of a failed step; closed by exec
};

std::vector<char*> Pointers(const std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (const std::string& s : strings) pointers.push_back(const_cast<char*>(s.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

absl::StatusOr<int> HoldAbove(Plan& plan, int fd, int lowest) {
  Fd copy(::fcntl(fd, F_DUPFD_CLOEXEC, lowest));
  if (!copy) return ErrnoStatus(absl::StrCat("descriptor ", fd));
  plan.held.push_back(std::move(copy));
  return plan.held.back().get();
}

absl::StatusOr<Plan> MakePlan(const std::vector<std::string>& argv, const StartOptions& options,
                              int stdout_fd, int error_fd) {
  if (argv.empty() || !absl::StrContains(argv[0], "/")) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", argv.empty() ? "" : argv[0], "' is not a path to a program"));
  }
  ASSIGN_OR_RETURN(const Fd null, OpenFile("/dev/null", O_RDWR));
  const auto or_null = [&null](int fd) { return fd < 0 ? null.get() : fd; };
  std::vector<std::pair<int, int>> wanted = {{or_null(options.stdin_fd), STDIN_FILENO},
                                             {or_null(stdout_fd), STDOUT_FILENO},
                                             {or_null(options.stderr_fd), STDERR_FILENO}};
  wanted.insert(wanted.end(), options.fds.begin(), options.fds.end());
  int lowest = 0;
  for (const auto& [from, to] : wanted) lowest = std::max(lowest, to + 1);

  Plan plan{.program = argv[0], .argv = Pointers(argv), .env = Pointers(options.env)};
  for (const auto& [from, to] : wanted) {
    ASSIGN_OR_RETURN(const int held, HoldAbove(plan, from, lowest));
    plan.map.emplace_back(held, to);
  }
  ASSIGN_OR_RETURN(plan.error_fd, HoldAbove(plan, error_fd, lowest));
  int program_fd = -1;
  if (absl::StartsWith(argv[0], kOwnFds) &&
      absl::SimpleAtoi(argv[0].substr(kOwnFds.size()), &program_fd)) {
    ASSIGN_OR_RETURN(const int held, HoldAbove(plan, program_fd, lowest), argv[0]);
    plan.program = absl::StrCat(kOwnFds, held);
  }
  return plan;
}

[[noreturn]] void FailInChild(const Plan& plan, int error_number) {
  (void)!::write(plan.error_fd, &error_number, sizeof error_number);
  ::_exit(127);
}

// Ignored signals and the mask would survive the exec: the plugin ignores SIGPIPE and SIGINT.
void ResetSignals() {
  struct sigaction defaults = {};
  defaults.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &defaults, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

void SetUpChild(const Plan& plan) {
  ResetSignals();
  ::setsid();
  // Other code's descriptors may lack CLOEXEC, Boost.Process's among them.
  if (::syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) != 0) FailInChild(plan, errno);
  for (const auto& [from, to] : plan.map) {
    if (::dup2(from, to) < 0) FailInChild(plan, errno);
  }
}

// The steps of a start that Boost.Process calls; without its own error pipe (ignore_error), whose
// number could be one that the child wants.
struct StartHandler : bp::extend::handler {
  const Plan* plan;
  int* fork_error;

  StartHandler(const Plan* p, int* error) : plan(p), fork_error(error) {}
  template <typename Executor>
  void on_fork_error(Executor&, const std::error_code& error) const {
    *fork_error = error.value();
  }
  template <typename Executor>
  void on_exec_setup(Executor& executor) const {
    SetUpChild(*plan);
    executor.exe = plan->program.c_str();
    executor.cmd_line = plan->argv.data();
    executor.env = const_cast<char**>(plan->env.data());
  }
  template <typename Executor>
  void on_exec_error(Executor&, const std::error_code& error) const {
    FailInChild(*plan, error.value());
  }
};

absl::StatusOr<pid_t> Fork(const Plan& plan) {
  int fork_error = 0;
  bp::child child(bp::exe = plan.program, bp::args = std::vector<std::string>(), bp::ignore_error,
                  StartHandler(&plan, &fork_error));
  if (fork_error != 0) return ErrnoStatus("fork", fork_error);
  const pid_t pid = child.id();
  child.detach();  // its destructor would kill
  return pid;
}

// errno of the step that failed in the child; 0 when it has executed its program.
int ReadChildError(int fd) {
  int error_number = 0;
  ssize_t count;
  do {
    count = ::read(fd, &error_number, sizeof error_number);
  } while (count < 0 && errno == EINTR);
  return count == sizeof error_number ? error_number : 0;
}

ExitStatus ToExitStatus(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return {.exit_code = info.si_status};
  return {.exit_code = 128 + info.si_status, .signal = info.si_status};
}

// One end of a running program's output, read without blocking.
struct Stream {
  Fd fd;
  std::string data;
};

void KeepTail(std::string& text, size_t limit) {
  if (text.size() > limit) text.erase(0, text.size() - limit);
}

// Reads what is there; closes the stream at its end. Returns false when nothing was there.
bool ReadSome(Stream& stream) {
  std::array<char, 16384> buffer;
  const ssize_t count = ::read(stream.fd.get(), buffer.data(), buffer.size());
  if (count > 0) {
    stream.data.append(buffer.data(), count);
    return true;
  }
  if (count == 0 || (errno != EAGAIN && errno != EINTR)) stream.fd.Reset();
  return count < 0 && errno == EINTR;
}

// A program under Run: its output, bounded, until its process ends.
class Running {
 public:
  Running(Subprocess child, Fd error, size_t limit)
      : child_(std::move(child)),
        out_{std::move(child_.output), ""},
        error_{std::move(error), ""},
        limit_(limit) {
    ::fcntl(out_.fd.get(), F_SETFL, O_NONBLOCK);
    ::fcntl(error_.fd.get(), F_SETFL, O_NONBLOCK);
  }

  // False when `deadline` passed first.
  bool AwaitEnd(Clock::time_point deadline) {
    while (true) {
      std::array<pollfd, 3> fds = {pollfd{child_.pidfd.get(), POLLIN, 0},
                                   pollfd{out_.fd.get(), POLLIN, 0},
                                   pollfd{error_.fd.get(), POLLIN, 0}};
      const auto left =
          std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
      if (left <= 0) return false;
      const int ready = ::poll(fds.data(), fds.size(), std::min<int64_t>(left, 1 << 30));
      if (ready < 0) continue;
      if (fds[1].revents != 0) ReadOutput();
      if (fds[2].revents != 0) ReadError();
      if (fds[0].revents != 0) return true;
    }
  }

  // What the program wrote is in the pipes when it has ended; others may still hold the write ends.
  // One pipe's content at most, because what it left behind may go on writing.
  void Drain() {
    constexpr int kReads = 64;  // 1 MiB, a pipe's greatest size by default
    for (int i = 0; i < kReads && out_.fd && ReadOutput(); ++i) {
    }
    for (int i = 0; i < kReads && error_.fd && ReadError(); ++i) {
    }
  }

  void KillGroup() { ::kill(-child_.pid, SIGKILL); }
  absl::StatusOr<ExitStatus> Reap() { return Wait(child_); }
  RunResult Result(ExitStatus exit) && {
    return {exit, std::move(out_.data), std::move(error_.data), truncated_};
  }
  const std::string& error_tail() const { return error_.data; }

 private:
  bool ReadOutput() {
    const bool more = ReadSome(out_);
    if (out_.data.size() > limit_) {
      out_.data.resize(limit_);
      truncated_ = true;
    }
    return more;
  }
  bool ReadError() {
    const bool more = ReadSome(error_);
    KeepTail(error_.data, limit_);
    return more;
  }

  Subprocess child_;
  Stream out_;
  Stream error_;
  const size_t limit_;
  bool truncated_ = false;
};

}  // namespace

absl::StatusOr<Subprocess> Start(const std::vector<std::string>& argv,
                                 const StartOptions& options) {
  Pipe output;
  if (options.pipe_stdout) {
    ASSIGN_OR_RETURN(output, MakePipe());
  }
  ASSIGN_OR_RETURN(Pipe error, MakePipe());
  Subprocess child;
  {
    ASSIGN_OR_RETURN(
        const Plan plan,
        MakePlan(argv, options, options.pipe_stdout ? output.write.get() : options.stdout_fd,
                 error.write.get()));
    ASSIGN_OR_RETURN(child.pid, Fork(plan));
  }
  error.write.Reset();
  // Not reaped yet, so the number still means our child.
  absl::StatusOr<Fd> pidfd = OpenPidfd(child.pid);
  const int child_error = ReadChildError(error.read.get());
  if (child_error != 0 || !pidfd.ok()) {
    ::kill(child.pid, SIGKILL);
    ::waitpid(child.pid, nullptr, 0);
    if (child_error != 0) return ErrnoStatus(absl::StrCat("start ", argv[0]), child_error);
    return Annotate(pidfd.status(), argv[0]);
  }
  child.pidfd = *std::move(pidfd);
  child.output = std::move(output.read);
  return child;
}

absl::StatusOr<ExitStatus> Wait(const Subprocess& child) {
  siginfo_t info = {};
  while (::waitid(P_PIDFD, child.pidfd.get(), &info, WEXITED) != 0) {
    if (errno != EINTR) return ErrnoStatus(absl::StrCat("wait for process ", child.pid));
  }
  return ToExitStatus(info);
}

absl::StatusOr<RunResult> Run(const std::vector<std::string>& argv, const RunOptions& options) {
  const Clock::time_point deadline = Clock::now() + options.timeout;
  Fd input;
  if (!options.stdin_data.empty()) {
    // A file: nobody has to feed a pipe while the program does not read.
    ASSIGN_OR_RETURN(input, MakeSealedMemfd("stdin", options.stdin_data));
  }
  ASSIGN_OR_RETURN(Pipe error, MakePipe());
  ASSIGN_OR_RETURN(Subprocess child, Start(argv, {.env = options.env,
                                                  .stdin_fd = input.get(),
                                                  .stderr_fd = error.write.get(),
                                                  .pipe_stdout = true}));
  error.write.Reset();
  Running running(std::move(child), std::move(error.read), options.max_output);
  const bool ended = running.AwaitEnd(deadline);
  running.KillGroup();
  ASSIGN_OR_RETURN(const ExitStatus exit, running.Reap(), argv[0]);
  if (!ended) {
    return absl::DeadlineExceededError(
        absl::StrCat("'", argv[0], "' did not end within ", options.timeout.count(),
                     " ms; its last words: '", running.error_tail(), "'"));
  }
  running.Drain();
  return std::move(running).Result(exit);
}

}  // namespace jenkins_agent
