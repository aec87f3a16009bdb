#include "driver/metrics/listener.h"

#include <netdb.h>
#include <poll.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/fd.h"
#include "driver/base/mutex.h"
#include "driver/base/nobody.h"
#include "driver/base/packet.h"
#include "driver/base/status.h"
#include "driver/metrics/exposition.h"

namespace jenkins_agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Below Prometheus' own default of 10 s, so that a plugin that hangs is seen as up = 0.
constexpr milliseconds kAnswerLimit{5000};
constexpr uint64_t kMaxOpenFiles = 64;
constexpr uint64_t kMaxFileBytes = 64 << 10;  // stderr, which the plugin keeps in memory

// civetweb keeps the reason of a failure to itself: a first try tells it.
absl::Status TryToListen(const std::string& address) {
  const size_t colon = address.rfind(':');
  absl::string_view host = absl::string_view(address).substr(0, colon);
  absl::ConsumePrefix(&host, "[");
  absl::ConsumeSuffix(&host, "]");
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error =
      ::getaddrinfo(std::string(host).c_str(), address.c_str() + colon + 1, &hints, &found);
  if (error != 0) return absl::InvalidArgumentError(::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  const Fd socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket) return ErrnoStatus("socket");
  // As civetweb does: connections of an earlier listener that are in TIME-WAIT are no obstacle.
  const int on = 1;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (::bind(socket.get(), found->ai_addr, found->ai_addrlen) != 0) return ErrnoStatus("bind");
  return ::listen(socket.get(), 1) == 0 ? absl::OkStatus() : ErrnoStatus("listen");
}

absl::Status GiveUpPrivileges() {
  RETURN_IF_ERROR(DropToNobody());
  RETURN_IF_ERROR(LowerLimit(RLIMIT_CORE, 0));
  RETURN_IF_ERROR(LowerLimit(RLIMIT_NOFILE, kMaxOpenFiles));
  return LowerLimit(RLIMIT_FSIZE, kMaxFileBytes);
}

// Into the heap: civetweb's threads have stacks of 100 KiB, and ReceivePacket()'s buffer for the
// largest packet would begin below the guard page, in the memory of others.
absl::StatusOr<std::string> ReceiveAnswer(int plugin) {
  std::string answer(kMaxPacketBytes, '\0');
  ssize_t size = 0;
  do {
    size = ::recv(plugin, answer.data(), answer.size(), MSG_TRUNC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return ErrnoStatus("receive");
  if (size == 0) return absl::OutOfRangeError("the plugin is gone");
  if (static_cast<size_t>(size) > answer.size()) return absl::InvalidArgumentError("truncated");
  answer.resize(size);
  return answer;
}

// Asks the plugin; called on civetweb's threads.
class Figures final : public prometheus::Collectable {
 public:
  explicit Figures(int plugin) : plugin_(plugin) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    const absl::StatusOr<pb::MetricsSnapshot> snapshot = Ask();
    return snapshot.ok() ? Families(*snapshot) : NoAnswer();
  }

 private:
  absl::StatusOr<pb::MetricsSnapshot> Ask() const ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(mutex_);  // one question at a time; held for kAnswerLimit at most
    pb::ListenerNews question;
    question.set_scrape(++scrape_);
    RETURN_IF_ERROR(SendPacket(plugin_, question.SerializeAsString()));
    const auto deadline = steady_clock::now() + kAnswerLimit;
    for (;;) {
      const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now());
      pollfd ready = {plugin_, POLLIN, 0};
      if (left.count() <= 0 || ::poll(&ready, 1, static_cast<int>(left.count())) == 0) {
        return absl::DeadlineExceededError("the plugin does not answer");
      }
      ASSIGN_OR_RETURN(const std::string answer, ReceiveAnswer(plugin_));
      pb::MetricsSnapshot snapshot;
      // Another number: the answer to a question that was given up.
      if (snapshot.ParseFromString(answer) && snapshot.scrape() == scrape_) return snapshot;
    }
  }

  const int plugin_;
  mutable Mutex mutex_;
  mutable uint64_t scrape_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status Serve(const std::string& address, int plugin) {
  RETURN_IF_ERROR(GiveUpPrivileges());  // before there is a second thread
  RETURN_IF_ERROR(TryToListen(address));
  // The plugin's first packet; for all threads, as there is one yet.
  ASSIGN_OR_RETURN(const Packet filter, ReceivePacket(plugin), "the system call filter");
  RETURN_IF_ERROR(LoadFilter(filter.data));
  const auto figures = std::make_shared<Figures>(plugin);
  try {
    prometheus::Exposer exposer(std::vector<std::string>{
        "listening_ports", address, "num_threads", "2", "request_timeout_ms", "5000",
        "connection_queue", "16", "enable_directory_listing", "no"});
    exposer.RegisterCollectable(figures);
    pb::ListenerNews news;
    news.set_listening(true);
    RETURN_IF_ERROR(SendPacket(plugin, news.SerializeAsString()));
    pollfd end = {plugin, POLLRDHUP, 0};
    while (::poll(&end, 1, -1) < 0 && errno == EINTR) {
    }
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
  return absl::OkStatus();
}

}  // namespace

int RunListener(const std::string& address, int plugin) {
  const absl::Status served = Serve(address, plugin);
  if (served.ok()) return 0;
  pb::ListenerNews news;
  news.set_error(std::string(served.message()));
  SendPacket(plugin, news.SerializeAsString()).IgnoreError();  // a plugin that is gone asks no more
  return 1;
}

}  // namespace jenkins_agent
