#include "driver/supervisor/oom_watcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/pidfd.h"
#include "driver/supervisor/oom_log.h"

namespace jenkins_agent {
namespace {

// Names that are kept for a payload's exit: the last ones.
constexpr size_t kMaxKnown = 4;

void Keep(const OomProcess& process, std::vector<OomProcess>* known) {
  if (known->size() == kMaxKnown) known->erase(known->begin());
  known->push_back(process);
}

// A pidfd is readable when its process has ended, also if that was reaped since.
bool HasEnded(const Fd& pidfd) {
  return pidfd && AwaitPidfd(pidfd.get(), std::chrono::milliseconds(0));
}

}  // namespace

OomWatcher::OomWatcher(EventLoop* loop, const cgroups::Cgroup* cgroup, OnKills on_kills)
    : loop_(loop), cgroup_(cgroup), on_kills_(std::move(on_kills)), settled_(Counter()) {}

OomWatcher::~OomWatcher() {
  DropSuspects();
  loop_->Cancel(patience_);
  loop_->Cancel(interval_);
  if (watch_) loop_->Unwatch(watch_->fd());
}

absl::Status OomWatcher::Start() {
  absl::StatusOr<cgroups::OomWatch> watch = cgroup_->WatchOom();
  if (!watch.ok()) return watch.status();
  watch_ = *std::move(watch);
  (void)watch_->Acknowledge();  // arms it; there is no event yet
  return loop_->Watch(watch_->fd(), watch_->events(), [this](uint32_t) { OnEvent(); });
}

void OomWatcher::OnLaunched(pid_t payload) {
  launching_ = false;
  payload_ = payload;
  Settle(/*patience_is_over=*/false);
}

uint64_t OomWatcher::Counter() const { return cgroup_->OomKills().value_or(0); }

void OomWatcher::OnEvent() {
  if (!watch_->Acknowledge()) return loop_->Unwatch(watch_->fd());
  Scan();
  Settle(/*patience_is_over=*/false);
}

// Everything that runs is a suspect until the kernel has chosen; the largest come first.
void OomWatcher::Scan() {
  const absl::StatusOr<std::vector<pid_t>> members = cgroup_->Members();
  if (!members.ok()) return;
  std::vector<Suspect> found;
  for (size_t i = 0; i < members->size() && i < kMaxScanned; ++i) {
    if (std::optional<Suspect> suspect = Look((*members)[i])) found.push_back(*std::move(suspect));
  }
  // Nothing was counted: whoever dies now dies of something else, or the count is about to rise,
  // which its end will show.
  const bool counted = Counter() > settled_;
  for (Suspect& suspect : found) suspect.process.dying &= counted;
  std::sort(found.begin(), found.end(), [](const Suspect& a, const Suspect& b) {
    return std::pair(a.process.dying, a.score) > std::pair(b.process.dying, b.score);
  });
  if (found.size() > kMaxSuspects) found.resize(kMaxSuspects);
  // Who has ended since the last look is no longer listed; its end may not have been heard of yet.
  for (Suspect& old : suspects_) {
    if (!counted || !HasEnded(old.pidfd) || found.size() == 2 * kMaxSuspects) continue;
    loop_->Unwatch(old.pidfd.get());
    old.process.dying = true;
    std::erase_if(found,
                  [&old](const Suspect& same) { return same.process.pid == old.process.pid; });
    found.push_back(std::move(old));
  }
  DropSuspects();
  suspects_ = std::move(found);
  for (const Suspect& suspect : suspects_) {
    const pid_t pid = suspect.process.pid;
    if (!suspect.pidfd || suspect.process.dying) continue;
    loop_->Watch(suspect.pidfd.get(), EPOLLIN, [this, pid](uint32_t) { OnSuspectEnded(pid); })
        .IgnoreError();  // one name less
  }
}

std::optional<OomWatcher::Suspect> OomWatcher::Look(pid_t pid) const {
  Suspect suspect;
  if (absl::StatusOr<Fd> pidfd = OpenPidfd(pid); pidfd.ok()) suspect.pidfd = *std::move(pidfd);
  const absl::StatusOr<std::string> status = ReadFile(absl::StrCat("/proc/", pid, "/status"));
  if (!status.ok()) return std::nullopt;
  suspect.process = ParseOomProcess(pid, *status);
  // The kernel's own measure of who goes first (proc(5)).
  const absl::StatusOr<std::string> score = ReadFile(absl::StrCat("/proc/", pid, "/oom_score"));
  if (score.ok()) (void)absl::SimpleAtoi(absl::StripAsciiWhitespace(*score), &suspect.score);
  return suspect;
}

// The kernel counts before it kills: an end without a new count is none of its kills.
void OomWatcher::OnSuspectEnded(pid_t pid) {
  const auto suspect = std::find_if(suspects_.begin(), suspects_.end(),
                                    [pid](const Suspect& any) { return any.process.pid == pid; });
  if (suspect == suspects_.end()) return;
  loop_->Unwatch(suspect->pidfd.get());
  suspect->process.dying = true;
  if (Counter() <= settled_) {
    suspects_.erase(suspect);
    return;
  }
  Settle(/*patience_is_over=*/false);
}

void OomWatcher::Settle(bool patience_is_over) {
  const uint64_t counter = Counter();
  if (launching_ || counter <= settled_) return;
  const uint64_t kills = counter - settled_;
  uint64_t of_payload = 0;
  std::vector<OomProcess> victims;
  for (const Suspect& suspect : suspects_) {
    if (!suspect.process.dying || victims.size() + of_payload == kills) continue;
    if (suspect.process.pid == payload_) {
      of_payload = 1;
    } else {
      victims.push_back(suspect.process);
    }
  }
  // Its exit is on the way and will tell.
  if (patience_is_over && victims.size() + of_payload < kills && !PayloadLives()) of_payload = 1;
  const uint64_t others = patience_is_over ? kills - of_payload : victims.size();
  if (others + of_payload < kills && patience_ == 0) {
    patience_ = loop_->After(kNamePatience, [this] {
      patience_ = 0;
      Settle(/*patience_is_over=*/true);
    });
  }
  if (others == 0) return;
  settled_ += others;
  since_launch_ += others;
  untold_ += others;
  for (const OomProcess& victim : victims) {
    Keep(victim, &known_since_launch_);
    Keep(victim, &untold_known_);
  }
  for (const OomProcess& victim : victims) {
    std::erase_if(suspects_,
                  [&](const Suspect& suspect) { return suspect.process.pid == victim.pid; });
  }
  if (of_payload == 0 && counter == settled_) DropSuspects();
  Tell();
}

bool OomWatcher::PayloadLives() const {
  if (payload_ == 0) return true;  // there is none that could have been killed
  const std::optional<Suspect> payload = Look(payload_);
  return payload.has_value() && !payload->process.dying;
}

std::vector<OomProcess> OomWatcher::NamedByTheKernel(uint64_t kills) const {
  if (cgroup_->dirs().empty()) return {};
  const std::string& dir = cgroup_->dirs().front();  // they all have the same name
  std::vector<OomProcess> victims = ReadOomLog(dir.substr(dir.rfind('/') + 1));
  std::erase_if(victims, [this](const OomProcess& any) { return any.pid == payload_; });
  const size_t older = victims.size() - std::min<size_t>(victims.size(), kills);
  victims.erase(victims.begin(), victims.begin() + older);
  return victims;
}

void OomWatcher::Tell() {
  if (interval_ != 0 || untold_ == 0) return;
  interval_ = loop_->After(kTellInterval, [this] {
    interval_ = 0;
    Tell();
  });
  if (untold_known_.empty()) {
    untold_known_ = NamedByTheKernel(untold_);
    for (const OomProcess& victim : untold_known_) Keep(victim, &known_since_launch_);
  }
  on_kills_(std::exchange(untold_, 0), std::exchange(untold_known_, {}));
}

OomWatcher::PayloadEnd OomWatcher::PayloadEnded(bool by_sigkill) {
  const uint64_t counter = Counter();
  PayloadEnd end;
  end.killed = by_sigkill && counter > settled_;
  const uint64_t unsettled = counter - std::min(counter, settled_);
  end.others = since_launch_ + unsettled - (end.killed ? 1 : 0);
  end.known = std::exchange(known_since_launch_, {});
  if (end.others > 0 && end.known.empty()) end.known = NamedByTheKernel(end.others);
  settled_ = counter;
  since_launch_ = 0;
  payload_ = 0;
  DropSuspects();
  loop_->Cancel(std::exchange(patience_, 0));
  return end;
}

void OomWatcher::DropSuspects() {
  for (const Suspect& suspect : suspects_) {
    if (suspect.pidfd) loop_->Unwatch(suspect.pidfd.get());
  }
  suspects_.clear();
}

}  // namespace jenkins_agent
