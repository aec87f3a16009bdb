#include "driver/plugin/serve.h"

#include <fcntl.h>
#include <grpc/support/log.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "driver/base/log.h"
#include "driver/base/status.h"
#include "driver/plugin/launch.h"
#include "driver/plugin/services.h"
#include "driver/plugin/socket_path.h"

namespace jenkins_agent {
namespace {

constexpr int kMaxMessageBytes = 256 << 20;  // TaskConfig carries a task's whole environment
// The host gives two seconds between Shutdown and SIGKILL.
constexpr timeval kEndLimit = {.tv_sec = 1, .tv_usec = 500'000};
// Time for the answer to Shutdown to leave; the host closes the connection when it has it.
constexpr std::chrono::milliseconds kDrainTime(100);

// What the signal handler of the last resort removes.
std::array<char, 128> socket_to_remove;

void EndNow(int) {
  ::unlink(socket_to_remove.data());
  ::_exit(0);
}

// A kernel timer: it also ends a main that hangs after Serve has returned.
void LimitTheEnd() {
  struct sigaction end = {};
  end.sa_handler = EndNow;
  ::sigaction(SIGALRM, &end, nullptr);
  const itimerval limit = {.it_interval = {}, .it_value = kEndLimit};
  ::setitimer(ITIMER_REAL, &limit, nullptr);
}

// gRPC's own messages in the form of ours: stderr carries nothing but JSON lines.
void LogFromGrpc(gpr_log_func_args* message) {
  const LogLevel level = message->severity == GPR_LOG_SEVERITY_ERROR  ? LogLevel::kError
                         : message->severity == GPR_LOG_SEVERITY_INFO ? LogLevel::kInfo
                                                                      : LogLevel::kDebug;
  Log(level, message->message, {{"source", "grpc"}});
}

absl::StatusOr<std::string> OwnSocketPath() {
  uint64_t random;
  if (::getrandom(&random, sizeof random, 0) != sizeof random) return ErrnoStatus("getrandom");
  return SocketPath(ProcessEnv, random);
}

absl::StatusOr<std::unique_ptr<grpc::Server>> Listen(const std::string& path,
                                                     const std::vector<grpc::Service*>& services) {
  grpc::ServerBuilder builder;
  int port = 0;  // stays 0 when the socket cannot be bound
  builder.AddListeningPort(absl::StrCat("unix:", path), grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  for (grpc::Service* service : services) builder.RegisterService(service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::InternalError(
        absl::StrCat("cannot listen on socket '", path, "'; is its directory there and writable?"));
  }
  if (::chmod(path.c_str(), 0600) != 0) return ErrnoStatus(absl::StrCat("chmod ", path));
  return server;
}

// Announces the socket. Afterwards stdout is /dev/null: the host reads lines of 64 KiB at most, and
// a longer one would stop its reader and later block our writer. The pipe itself stays open,
// out of reach of any child: to the host, its end means that the plugin is dead.
absl::StatusOr<Fd> Announce(const std::string& path) {
  RETURN_IF_ERROR(WriteAll(STDOUT_FILENO, HandshakeLine(ProcessEnv, path)), "handshake on stdout");
  ASSIGN_OR_RETURN(Fd pipe, Duplicate(STDOUT_FILENO), "stdout");
  ASSIGN_OR_RETURN(const Fd null, OpenFile("/dev/null", O_WRONLY));
  if (::dup2(null.get(), STDOUT_FILENO) < 0) return ErrnoStatus("dup2 /dev/null over stdout");
  return pipe;
}

// An eventfd, because Shutdown may be called more than once, from any thread.
void AwaitShutdown(const Fd& asked) {
  eventfd_t count;
  while (::eventfd_read(asked.get(), &count) != 0 && errno == EINTR) {
  }
}

}  // namespace

absl::Status Serve(const std::vector<grpc::Service*>& services,
                   const std::function<void()>& on_shutdown) {
  gpr_set_log_function(LogFromGrpc);
  const Fd asked_to_end(::eventfd(0, EFD_CLOEXEC));
  if (!asked_to_end) return ErrnoStatus("eventfd");
  ASSIGN_OR_RETURN(const std::string path, OwnSocketPath());
  path.copy(socket_to_remove.data(), socket_to_remove.size() - 1);

  HealthService health;
  ControllerService controller([&asked_to_end] { ::eventfd_write(asked_to_end.get(), 1); });
  StdioService stdio;
  BrokerService broker;
  std::vector<grpc::Service*> all = {&health, &controller, &stdio, &broker};
  all.insert(all.end(), services.begin(), services.end());

  const absl::Cleanup remove_socket = [&path] { ::unlink(path.c_str()); };
  ASSIGN_OR_RETURN(const std::unique_ptr<grpc::Server> server, Listen(path, all));
  ASSIGN_OR_RETURN(Fd stdout_pipe, Announce(path));

  AwaitShutdown(asked_to_end);
  (void)stdout_pipe.Release();  // closed by the kernel, at the end of the process
  LimitTheEnd();
  if (on_shutdown) on_shutdown();
  server->Shutdown(std::chrono::system_clock::now() + kDrainTime);
  return absl::OkStatus();
}

}  // namespace jenkins_agent
