#include "driver/supervisor/client.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <utility>

#include "driver/base/fault.h"
#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "driver/base/paths.h"
#include "driver/base/status.h"
#include "driver/supervisor/protocol.h"
#include "driver/supervisor/spawner.h"

namespace jenkins_agent {
namespace {

using TimePoint = std::chrono::steady_clock::time_point;

// For the spawner's forks, which rest for years: what malloc's cache of freed chunks holds back
// keeps pages that malloc_trim would give to the kernel (glibc manual, "Memory Allocation
// Tunables").
constexpr char kNoMallocCache[] = "GLIBC_TUNABLES=glibc.malloc.tcache_count=0";

// OK: there is something to read, or the end.
absl::Status WaitReadableUntil(int fd, TimePoint deadline) {
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    pollfd wait = {fd, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(std::max<int64_t>(left.count(), 0)));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return ErrnoStatus("poll");
    if (ready == 0) return absl::DeadlineExceededError("no answer");
  }
}

absl::Status WaitReadable(int fd, std::chrono::milliseconds timeout) {
  const absl::Status ready = WaitReadableUntil(fd, std::chrono::steady_clock::now() + timeout);
  if (!absl::IsDeadlineExceeded(ready)) return ready;
  return absl::DeadlineExceededError(absl::StrCat("no answer within ", timeout.count(), " ms"));
}

absl::Status ErrorOf(const pb::ControlReply& reply) {
  return absl::Status(static_cast<absl::StatusCode>(reply.error_code()), reply.error());
}

// The connection, with the request on its way. A supervisor whose queue is full holds up nobody.
absl::StatusOr<Fd> Ask(const std::string& task_dir, const pb::ControlRequest& request) {
  ASSIGN_OR_RETURN(Fd connection, ConnectToSupervisor(task_dir, std::chrono::milliseconds(1)));
  RETURN_IF_ERROR(SendPacket(connection.get(), request.SerializeAsString()));
  return connection;
}

absl::StatusOr<pb::ControlReply> AwaitReply(const absl::StatusOr<Fd>& call, TimePoint deadline) {
  if (absl::IsResourceExhausted(call.status())) {
    return absl::DeadlineExceededError(call.status().message());
  }
  RETURN_IF_ERROR(call.status());
  RETURN_IF_ERROR(WaitReadableUntil(call->get(), deadline));
  const absl::StatusOr<Packet> packet = ReceivePacket(call->get());
  pb::ControlReply reply;
  if (!packet.ok() || !reply.ParseFromString(packet->data)) {
    return absl::UnavailableError("the task's supervisor ended");
  }
  RETURN_IF_ERROR(ErrorOf(reply));
  return reply;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Spawner>> Spawner::Start(Fd program) {
  auto spawner = std::unique_ptr<Spawner>(new Spawner(std::move(program)));
  MutexLock lock(spawner->mutex_);
  RETURN_IF_ERROR(spawner->StartProcess());
  return spawner;
}

Spawner::~Spawner() {
  MutexLock lock(mutex_);
  EndProcess();
}

absl::Status Spawner::StartProcess() {
  ASSIGN_OR_RETURN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET));
  StartOptions options;
  options.env = FaultEnvironment();
  options.env.push_back(kNoMallocCache);
  options.fds = {{sockets.second.get(), kSpawnerSocket}};
  const std::string program = absl::StrCat("/proc/self/fd/", program_.get());
  ASSIGN_OR_RETURN(process_, jenkins_agent::Start({program}, options), "start the spawner");
  socket_ = std::move(sockets.first);
  return absl::OkStatus();
}

// End of file on its socket ends the spawner, which is idle or in the middle of a fork.
void Spawner::EndProcess() {
  socket_.Reset();
  if (process_.pid > 0) (void)Wait(process_);  // its exit code means nothing to anyone
  process_ = Subprocess();
}

absl::StatusOr<Fd> Spawner::Spawn(const pb::LaunchSpec& spec, int64_t received_monotonic_ns) {
  pb::LaunchSpec versioned = spec;
  versioned.set_version(kSpecVersion);
  versioned.set_packed_sandbox(spec.sandbox().SerializeAsString());
  versioned.clear_sandbox();
  versioned.clear_root_template();
  const std::string bytes = versioned.SerializeAsString();
  if (bytes.size() > kMaxSpecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("environment and arguments are too large: ", bytes.size(), " bytes, at most ",
                     kMaxSpecBytes));
  }
  ASSIGN_OR_RETURN(const Fd memfd, MakeSealedMemfd("task", bytes));
  ASSIGN_OR_RETURN(SocketPair control, MakeSocketPair(SOCK_SEQPACKET));
  pb::SpawnRequest request;
  request.set_version(kSpecVersion);
  request.set_received_monotonic_ns(received_monotonic_ns);
  request.set_root_template(spec.root_template().SerializeAsString());
  const std::vector<int> fds = {memfd.get(), control.second.get()};

  MutexLock lock(mutex_);
  absl::Status sent = absl::UnavailableError("no spawner");
  if (socket_) sent = SendPacket(socket_.get(), request.SerializeAsString(), fds);
  if (absl::IsUnavailable(sent)) {
    EndProcess();
    RETURN_IF_ERROR(StartProcess());
    sent = SendPacket(socket_.get(), request.SerializeAsString(), fds);
  }
  RETURN_IF_ERROR(sent, "spawner");
  return std::move(control.first);
}

pid_t Spawner::pid() const {
  MutexLock lock(mutex_);
  return process_.pid;
}

absl::StatusOr<pb::TaskStatus> AwaitStart(int connection, std::chrono::milliseconds timeout) {
  RETURN_IF_ERROR(WaitReadable(connection, timeout), "start of the task");
  const absl::StatusOr<Packet> packet = ReceivePacket(connection);
  pb::ControlReply reply;
  if (!packet.ok() || !reply.ParseFromString(packet->data)) {
    return absl::AbortedError("the task's supervisor died during the start; see supervisor.log");
  }
  RETURN_IF_ERROR(ErrorOf(reply));
  return reply.status();
}

absl::StatusOr<pb::TaskStatus> AskSupervisor(const std::string& task_dir,
                                             std::chrono::milliseconds timeout) {
  ASSIGN_OR_RETURN(const Fd connection, ConnectToSupervisor(task_dir));
  pb::ControlRequest request;
  request.mutable_hello()->set_version(kSpecVersion);
  RETURN_IF_ERROR(SendPacket(connection.get(), request.SerializeAsString()));
  return AwaitStart(connection.get(), timeout);
}

std::vector<absl::StatusOr<pb::ControlReply>> CallSupervisors(
    const std::vector<std::string>& task_dirs, const pb::ControlRequest& request,
    std::chrono::milliseconds timeout) {
  // A reply that says nothing but "done" would have no bytes without it, as the end has none.
  pb::ControlRequest numbered = request;
  numbered.set_sequence(1);
  std::vector<absl::StatusOr<pb::ControlReply>> replies;
  replies.reserve(task_dirs.size());
  for (size_t first = 0; first < task_dirs.size(); first += kAskedAtOnce) {
    const size_t end = std::min(first + kAskedAtOnce, task_dirs.size());
    std::vector<absl::StatusOr<Fd>> calls;
    for (size_t i = first; i < end; ++i) calls.push_back(Ask(task_dirs[i], numbered));
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    for (const absl::StatusOr<Fd>& call : calls) replies.push_back(AwaitReply(call, deadline));
  }
  return replies;
}

absl::StatusOr<Fd> ConnectToSupervisor(const std::string& task_dir,
                                       std::chrono::milliseconds limit) {
  const absl::StatusOr<Fd> dir = OpenFile(task_dir, O_RDONLY | O_DIRECTORY);
  if (!dir.ok()) return absl::UnavailableError(dir.status().message());
  absl::StatusOr<Fd> socket = ConnectPacket(dir->get(), kControlSocket, limit);
  if (absl::IsResourceExhausted(socket.status())) return socket;
  if (!socket.ok()) return absl::UnavailableError(socket.status().message());
  return socket;
}

}  // namespace jenkins_agent
