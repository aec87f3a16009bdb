#include "driver/agent/health.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "driver/agent/phases.h"

namespace jenkins_agent {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Rare enough to cost nothing beside hundreds of agents (README, Figures).
constexpr milliseconds kRareLook = std::chrono::seconds(15);
constexpr milliseconds kSoonLook = std::chrono::seconds(5);
// A full table in which the last entries come and go is full.
constexpr uint64_t kExhaustedPercent = 98;
// Of the memory limit: told from the one on, and again after the task was below the other.
constexpr uint64_t kFullPercent = 90;
constexpr uint64_t kRoomyPercent = 50;
// Threads that are never released add up to many times what an agent begins with.
constexpr uint64_t kLeakFactor = 2;
// An idle JVM's work between two looks; and the time since its controller's last word.
constexpr double kIdleCpuSeconds = 0.15;
constexpr milliseconds kIdleChannel{1000};

int64_t Seconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::seconds>(duration).count();
}

std::string PidsInWords(const HealthSample& sample) {
  return absl::StrCat(sample.pids, " of ", sample.pids_limit,
                      " processes and threads in use, the agent's JVM has ", sample.threads);
}

// By the JVM itself: what builds use up ends with them.
bool Exhausted(const HealthSample& sample) {
  return sample.pids_limit > 0 && sample.pids * 100 >= sample.pids_limit * kExhaustedPercent &&
         sample.threads * 2 >= sample.pids_limit;
}

}  // namespace

Health HealthWatch::Judge(const HealthSample& sample) {
  if (last_.has_value() && last_->phase != sample.phase) phase_since_ = sample.time;
  const std::string symptom = Symptom(sample);
  Health health;
  health.news = News(sample, health.crowded);
  const std::string worn = Worn(sample);
  if (first_threads_ == 0 && sample.phase == pb::PHASE_CONNECTED) first_threads_ = sample.threads;
  last_ = sample;
  if (const std::string disconnected = Disconnected(sample); !disconnected.empty()) {
    return {Health::kWedged, disconnected, health.news, health.crowded};
  }
  if (symptom.empty()) {
    last_good_ = sample.time;
    bad_since_.reset();
    if (!worn.empty()) return {Health::kWorn, worn, health.news, health.crowded};
    return health;
  }
  if (!bad_since_.has_value()) bad_since_ = sample.time;
  const auto bad_for = sample.time - last_good_;
  health.kind = Health::kSuspect;
  health.cause = symptom;
  // Of a sampler that was itself held up the last good look is long ago and proves nothing.
  const bool seen_again = sample.time - *bad_since_ >= limits_.wedge_timeout / 2;
  if (bad_for < limits_.wedge_timeout || !seen_again) return health;
  health.kind = Health::kWedged;
  absl::StrAppend(&health.cause, ", for ", Seconds(bad_for), " s");
  return health;
}

// What is not in order at this moment; a moment alone proves nothing.
std::string HealthWatch::Symptom(const HealthSample& sample) const {
  if (sample.frozen) return "";
  if (sample.process_state == 'T' || sample.process_state == 't') {
    return absl::StrCat("its process is stopped (state ", std::string(1, sample.process_state),
                        ")");
  }
  if (Exhausted(sample)) {
    return absl::StrCat("it cannot start threads any more (", PidsInWords(sample), ")");
  }
  if (sample.phase == pb::PHASE_STARTING && sample.time - phase_since_ >= limits_.start_timeout) {
    return absl::StrCat("it has not begun to look for its controller ",
                        Seconds(sample.time - phase_since_), " s after its start");
  }
  return sample.phase == pb::PHASE_CONNECTED ? SocketSymptom(sample) : "";
}

std::string HealthWatch::SocketSymptom(const HealthSample& sample) const {
  switch (sample.socket) {
    case HealthSample::Socket::kUnknown:
      return "";
    case HealthSample::Socket::kMissing:
      return "it says that it is connected and has no connection to the controller";
    case HealthSample::Socket::kClosing:
      return absl::StrCat("the controller has closed the connection and it does not notice (",
                          sample.unread_bytes, " bytes unread)");
    case HealthSample::Socket::kEstablished:
      break;
  }
  // It has asked since: a controller without pings may be silent for hours, and nothing is wrong.
  if (sample.since_data >= kDeadPeer &&
      sample.since_data - sample.since_sent >= limits_.wedge_timeout) {
    return absl::StrCat("nothing has come from the controller for ", Seconds(sample.since_data),
                        " s, although it was asked");
  }
  if (sample.unread_bytes == 0 || !last_.has_value()) return "";
  const double elapsed = std::chrono::duration<double>(sample.time - last_->time).count();
  const bool idle = sample.cpu_seconds - last_->cpu_seconds <= elapsed * kIdleCpuShare + 0.01;
  const bool reads = sample.read_bytes != last_->read_bytes;
  if (!idle || reads) return "";
  return absl::StrCat("it does not read from the controller (", sample.unread_bytes,
                      " bytes unread)");
}

// A controller that is down is waited for; one that answers should have its agent back. One that
// refuses it is the restart policy's business.
std::string HealthWatch::Disconnected(const HealthSample& sample) {
  const bool away = sample.phase == pb::PHASE_TERMINATED || sample.phase == pb::PHASE_LOCATING ||
                    sample.phase == pb::PHASE_HANDSHAKING || sample.phase == pb::PHASE_STARTING;
  if (!away || sample.controller_answers == false) answering_since_.reset();
  if (!away || sample.controller_answers != true) return "";
  if (!answering_since_.has_value()) answering_since_ = sample.time;
  const auto answering_for = sample.time - *answering_since_;
  if (answering_for < limits_.controller_grace) return "";
  return absl::StrCat("not connected although the controller has answered for ",
                      Seconds(answering_for), " s");
}

// No build has a process, and no operator. A JVM whose threads work although it has no process
// beside it may be fetching or sending files.
bool HealthWatch::Idle(const HealthSample& sample) const {
  const bool alone = sample.pids > 0 && sample.pids == sample.threads;
  return alone && !sample.frozen && last_.has_value() && sample.phase == pb::PHASE_CONNECTED &&
         sample.cpu_seconds - last_->cpu_seconds <= kIdleCpuSeconds &&
         sample.since_data >= kIdleChannel;
}

std::string HealthWatch::Worn(const HealthSample& sample) const {
  if (!Idle(sample)) return "";
  if (limits_.max_age.count() > 0 && sample.age >= limits_.max_age) {
    return absl::StrCat("the agent's JVM is idle and ",
                        std::chrono::floor<std::chrono::minutes>(sample.age).count(),
                        " minutes old, more than agent.max_age");
  }
  const uint64_t crowded = CrowdedFrom(sample);
  if (crowded > 0 && sample.threads >= crowded && sample.threads >= first_threads_ * kLeakFactor) {
    return absl::StrCat("the agent's JVM is idle and keeps ", sample.threads,
                        " threads, more than health.thread_limit; it began with ", first_threads_);
  }
  return "";
}

uint64_t HealthWatch::CrowdedFrom(const HealthSample& sample) const {
  return limits_.thread_limit > 0 ? limits_.thread_limit : sample.pids_limit * 80 / 100;
}

std::string HealthWatch::News(const HealthSample& sample, bool& came_to_limit) {
  const uint64_t crowded = CrowdedFrom(sample);
  if (sample.pids * 10 < crowded * 9) told_crowded_ = false;
  if (sample.pids_limit > 0 && sample.pids >= crowded && !told_crowded_) {
    told_crowded_ = true;
    came_to_limit = true;
    return PidsInWords(sample);
  }
  if (sample.memory_bytes * 100 < sample.memory_limit * kRoomyPercent) told_full_ = false;
  if (sample.memory_limit > 0 && !told_full_ &&
      sample.memory_bytes * 100 >= sample.memory_limit * kFullPercent) {
    told_full_ = true;
    return absl::StrCat("the task uses ", sample.memory_bytes >> 20, " of its ",
                        sample.memory_limit >> 20, " MiB of memory");
  }
  if (sample.phase == pb::PHASE_CONNECTED) {
    connected_last_ = sample.time;
    told_late_ = false;
  }
  const auto away = sample.time - connected_last_;
  if (away < limits_.start_timeout || told_late_) return "";
  told_late_ = true;
  return absl::StrCat("agent not connected for ", Seconds(away), " s; ", PhaseName(sample.phase),
                      sample.phase_detail.empty() ? "" : ": ", sample.phase_detail);
}

milliseconds HealthWatch::NextLook(Health::Kind last) const {
  const milliseconds rarely = std::min(kRareLook, limits_.wedge_timeout / 4);
  if (last == Health::kGood || last == Health::kWorn) return rarely;
  const milliseconds soon = std::min(kSoonLook, limits_.wedge_timeout / 12);
  if (!last_.has_value()) return soon;
  // Also exactly when the time is over.
  const milliseconds left =
      std::chrono::ceil<milliseconds>(last_good_ + limits_.wedge_timeout - last_->time);
  return left > milliseconds(0) ? std::min(soon, left) : soon;
}

}  // namespace jenkins_agent
