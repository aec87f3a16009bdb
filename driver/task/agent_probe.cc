#include "driver/task/agent_probe.h"

#include <netinet/tcp.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "driver/base/process.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

double TicksToSeconds(uint64_t ticks) {
  static const auto kPerSecond = static_cast<double>(::sysconf(_SC_CLK_TCK));
  return static_cast<double>(ticks) / kPerSecond;
}

// Both counts begin at boot and go on while the host sleeps (proc(5), field 22).
std::chrono::milliseconds AgeOf(uint64_t start_time) {
  timespec now = {};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  const double seconds = static_cast<double>(now.tv_sec) - TicksToSeconds(start_time);
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
}

}  // namespace

absl::StatusOr<HealthSample> AgentProbe::Look(bool connected) {
  ASSIGN_OR_RETURN(const ProcessLook process, LookAtProcess(target_.pid));
  if (process.start_time != target_.start_time) {
    return absl::NotFoundError("its pid is another process's by now");
  }
  HealthSample sample;
  sample.time = std::chrono::steady_clock::now();
  sample.process_state = process.state;
  sample.cpu_seconds = TicksToSeconds(process.cpu_ticks);
  sample.threads = process.threads;
  sample.age = AgeOf(target_.start_time);
  LookAtCgroup(sample);
  if (connected) LookAtSocket(sample);
  return sample;
}

void AgentProbe::OpenGauges() {
  const absl::StatusOr<cgroups::Hierarchy> hierarchy = cgroups::Hierarchy::Detect();
  if (!hierarchy.ok()) return;
  const auto cgroup = cgroups::Cgroup::Open(*hierarchy, target_.cgroup_dirs);
  if (!cgroup.ok()) return;
  if (auto gauges = cgroup->OpenGauges(); gauges.ok()) gauges_ = *std::move(gauges);
}

// What cannot be read is not judged.
void AgentProbe::LookAtCgroup(HealthSample& sample) {
  if (!gauges_.has_value()) OpenGauges();
  if (!gauges_.has_value()) return;
  const cgroups::Gauges::Reading reading = gauges_->Read();
  sample.pids = reading.pids.value_or(0);
  sample.pids_limit = gauges_->ceiling().pids.value_or(0);
  sample.memory_bytes = reading.memory_bytes.value_or(0);
  sample.memory_limit = gauges_->ceiling().memory_bytes.value_or(0);
  sample.frozen = reading.frozen;
}

void AgentProbe::LookAtSocket(HealthSample& sample) {
  using Socket = HealthSample::Socket;
  if (!diag_.has_value()) {
    auto diag = SocketDiag::Open(target_.network_namespace);
    if (!diag.ok()) return;
    diag_ = *std::move(diag);
  }
  absl::StatusOr<TcpFigures> figures = absl::NotFoundError("none yet");
  if (socket_.has_value()) figures = diag_->Look(*socket_);
  // One that closes may have a successor already.
  if (!figures.ok() || figures->state != TCP_ESTABLISHED) {
    auto found = FindSocket();
    if (!found.ok()) return;
    socket_ = *std::move(found);
    if (socket_.has_value()) figures = diag_->Look(*socket_);
  }
  sample.socket = Socket::kMissing;
  if (!socket_.has_value() || !figures.ok()) return;
  sample.socket = figures->state == TCP_ESTABLISHED ? Socket::kEstablished : Socket::kClosing;
  sample.unread_bytes = figures->unread_bytes;
  sample.read_bytes = figures->read_bytes;
  sample.since_data = figures->since_received;
  sample.since_sent = figures->since_sent;
}

absl::StatusOr<std::optional<TcpSocket>> AgentProbe::FindSocket() {
  ASSIGN_OR_RETURN(const std::set<uint32_t> inodes, SocketsOf(target_.pid));
  ASSIGN_OR_RETURN(const std::vector<TcpSocket> sockets, diag_->Find(inodes));
  return ControllerSocket(sockets);
}

std::optional<TcpSocket> ControllerSocket(const std::vector<TcpSocket>& sockets) {
  const auto rank = [](const TcpSocket& socket) {
    return std::make_tuple(!socket.keep_alive, socket.state != TCP_ESTABLISHED, socket.inode);
  };
  const auto best =
      std::min_element(sockets.begin(), sockets.end(),
                       [&](const TcpSocket& a, const TcpSocket& b) { return rank(a) < rank(b); });
  if (best == sockets.end()) return std::nullopt;
  return *best;
}

}  // namespace jenkins_agent
