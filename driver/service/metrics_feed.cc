#include "driver/service/metrics_feed.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/log.h"
#include "driver/base/packet.h"
#include "driver/base/pidfd.h"
#include "driver/base/status.h"
#include "driver/sandbox/seccomp.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxLastWords = 64 << 10;

}  // namespace

MetricsFeed::~MetricsFeed() {
  options_.loop->Cancel(timer_);
  Stop();
}

void MetricsFeed::Launch() {
  if (const absl::Status launched = TryToLaunch(); !launched.ok()) {
    RetryAfter(std::string(launched.message()));
  }
}

absl::Status MetricsFeed::TryToLaunch() {
  error_.clear();
  ASSIGN_OR_RETURN(SocketPair sockets, MakeSocketPair(SOCK_SEQPACKET, SOCK_NONBLOCK));
  RETURN_IF_ERROR(SendPacket(sockets.first.get(), ExporterFilter()));
  stderr_.Reset(::memfd_create("exporter-stderr", MFD_CLOEXEC));
  if (!stderr_) return ErrnoStatus("memfd_create");
  StartOptions start;
  start.stdin_fd = sockets.second.get();
  start.stderr_fd = stderr_.get();
  ASSIGN_OR_RETURN(
      process_,
      Start({absl::StrCat("/proc/self/fd/", options_.program.get()), options_.address}, start),
      "exporter");
  socket_ = std::make_shared<Fd>(std::move(sockets.first));
  return options_.loop->Watch(socket_->get(), EPOLLIN, [this](uint32_t) { OnPacket(); });
}

void MetricsFeed::OnPacket() {
  const absl::StatusOr<Packet> packet = ReceivePacket(socket_->get());
  if (absl::IsResourceExhausted(packet.status())) return;  // nothing there after all
  pb::ListenerNews news;
  if (!packet.ok() || !news.ParseFromString(packet->data)) return OnEnd();
  OnNews(news);
}

void MetricsFeed::OnNews(const pb::ListenerNews& news) {
  switch (news.kind_case()) {
    case pb::ListenerNews::kListening:
      delay_ = kFirstDelay;
      told_.clear();
      return Log(LogLevel::kInfo, "metrics are served",
                 {{"url", absl::StrCat("http://", options_.address, "/metrics")}});
    case pb::ListenerNews::kError:
      error_ = news.error();
      return;
    case pb::ListenerNews::kScrape:
      return Answer(news.scrape());
    case pb::ListenerNews::KIND_NOT_SET:
      return;
  }
}

// The loop asks the supervisors, the worker reads the cgroups and sends.
void MetricsFeed::Answer(uint64_t scrape) {
  // It asks again only when it was answered or has given up: more would be work without end.
  if (busy_->exchange(true)) return;
  const std::vector<std::shared_ptr<Task>> tasks = options_.store->Tasks();
  for (const std::shared_ptr<Task>& task : tasks) task->Refresh();
  const auto send = [tasks, scrape, busy = busy_, meter = meter_, socket = socket_,
                     metrics = options_.metrics] {
    meter->Measure(tasks);
    pb::MetricsSnapshot snapshot = metrics->Snapshot();
    snapshot.set_scrape(scrape);
    busy->store(false);  // before the answer, which the next question may follow at once
    // A listener that is gone needs no answer.
    SendPacket(socket->get(), snapshot.SerializeAsString()).IgnoreError();
  };
  if (tasks.empty()) return options_.worker->Post(send);
  options_.loop->After(kRefreshTime, [worker = options_.worker, send] { worker->Post(send); });
}

void MetricsFeed::OnEnd() {
  Stop();
  RetryAfter(error_.empty() ? LastWords() : error_);
}

void MetricsFeed::Stop() {
  if (socket_ == nullptr) return;
  options_.loop->Unwatch(socket_->get());
  socket_.reset();
  SignalPidfd(process_.pidfd.get(), SIGKILL).IgnoreError();  // it is about to end anyway
  Wait(process_).IgnoreError();
}

void MetricsFeed::RetryAfter(const std::string& reason) {
  if (std::exchange(told_, reason) != reason) {
    Log(LogLevel::kWarn, "metrics are not served; tried again until they are",
        {{"address", options_.address}, {"error", reason}});
  }
  timer_ = options_.loop->After(delay_, [this] { Launch(); });
  delay_ = std::min(delay_ * 2, kLongestDelay);
}

std::string MetricsFeed::LastWords() const {
  ::lseek(stderr_.get(), 0, SEEK_SET);
  const absl::StatusOr<std::string> words = ReadAll(stderr_.get(), kMaxLastWords);
  if (!words.ok()) return "the listener died";
  const absl::string_view text = absl::StripAsciiWhitespace(*words);
  return text.empty() ? "the listener died" : std::string(text);
}

}  // namespace jenkins_agent
