// Other programs: started with exactly the descriptors, environment and signals that are asked for.
//
// Everything the plugin starts goes through here (the spawner's forks apart), because a child that
// inherits the plugin's stdout or stderr keeps the Nomad agent from noticing that the plugin died.
// A child leads a session of its own: a Ctrl-C at the agent's terminal does not reach it.
// All functions may be called from any thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"

namespace jenkins_agent {

struct ExitStatus {
  int exit_code = 0;  // 128 + signal when signalled
  int signal = 0;
};

struct StartOptions {
  std::vector<std::string> env = {};  // KEY=VALUE, the whole environment; nothing is inherited
  // Descriptors of the caller, who keeps them. -1: /dev/null.
  int stdin_fd = -1;
  int stdout_fd = -1;
  int stderr_fd = -1;
  bool pipe_stdout = false;  // instead of stdout_fd: read it from Subprocess::output
  // Further descriptors: {the caller's, its number in the child (3 or more)}.
  std::vector<std::pair<int, int>> fds = {};
};

// A running child. The owner reaps it with Wait(); dropping the object does neither end nor reap.
struct Subprocess {
  pid_t pid = -1;
  Fd pidfd;   // readable once the process has ended
  Fd output;  // read end of its stdout, with pipe_stdout
};

// Starts argv[0], which is a path; there is no search in PATH. "/proc/self/fd/N" runs a program
// that the caller holds as a descriptor (memfd). Returns after the exec, so a program that cannot
// be executed is an error here.
absl::StatusOr<Subprocess> Start(const std::vector<std::string>& argv, const StartOptions& options);

// Waits for the end of a child and reaps it.
absl::StatusOr<ExitStatus> Wait(const Subprocess& child);

struct RunOptions {
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  size_t max_output = 1 << 20;  // bytes of stdout kept (the first), and of stderr (the last)
  std::vector<std::string> env = {};
  std::string stdin_data = {};
};

struct RunResult {
  ExitStatus exit;
  std::string output;
  std::string error_tail;
  bool truncated = false;  // there was more output
};

// Runs a program to its end, then ends whatever it left in its process group. A program that runs
// too long is killed: DeadlineExceeded. An exit code is no error.
absl::StatusOr<RunResult> Run(const std::vector<std::string>& argv, const RunOptions& options);

}  // namespace jenkins_agent
