#include "driver/agent/health.h"

#include "absl/strings/str_cat.h"

namespace jenkins_agent {
namespace {

int64_t Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::seconds>(duration).count();
}

bool Crowded(const HealthSample& sample, int percent) {
  return sample.pids_limit > 0 && sample.pids * 100 >= sample.pids_limit * percent;
}

}  // namespace

Health HealthWatch::Judge(const HealthSample& sample) {
  if (!last_.has_value()) last_good_ = sample.time;
  const std::string symptom = Symptom(sample);
  const std::string disconnected = Disconnected(sample);
  last_ = sample;
  if (!disconnected.empty()) return {Health::kWedged, disconnected};
  if (!symptom.empty()) {
    const auto bad_for = sample.time - last_good_;
    if (bad_for < limits_.wedge_timeout) return {Health::kSuspect, symptom};
    return {Health::kWedged, absl::StrCat(symptom, ", for ", Seconds(bad_for), " s")};
  }
  last_good_ = sample.time;
  if (!Crowded(sample, limits_.crowded_percent)) return {};
  return {Health::kCrowded,
          absl::StrCat(sample.pids, " of ", sample.pids_limit, " processes and threads in use")};
}

// What is not in order at this moment; a moment alone proves nothing.
std::string HealthWatch::Symptom(const HealthSample& sample) const {
  if (sample.frozen) return "";
  if (sample.process_state == 'T' || sample.process_state == 't') {
    return absl::StrCat("its process is stopped (state ", std::string(1, sample.process_state),
                        ")");
  }
  if (sample.phase != pb::PHASE_CONNECTED) return "";
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
  if (sample.since_data >= kDeadPeer) {
    return absl::StrCat("nothing has come from the controller for ", Seconds(sample.since_data),
                        " s");
  }
  const bool idle = last_.has_value() && last_->cpu_ticks == sample.cpu_ticks;
  const bool reads =
      sample.unread_bytes == 0 || (last_.has_value() && sample.unread_bytes < last_->unread_bytes);
  if (idle && !reads) {
    return absl::StrCat("it does not read from the controller (", sample.unread_bytes,
                        " bytes unread)");
  }
  return "";
}

// A controller that is down is waited for; one that answers should have its agent back.
std::string HealthWatch::Disconnected(const HealthSample& sample) {
  const bool away = sample.phase == pb::PHASE_TERMINATED || sample.phase == pb::PHASE_LOCATING ||
                    sample.phase == pb::PHASE_HANDSHAKING || sample.phase == pb::PHASE_STARTING;
  if (!away || sample.controller_answers == false) {
    answering_since_.reset();
    return "";
  }
  if (sample.controller_answers != true) return "";
  if (!answering_since_.has_value()) answering_since_ = sample.time;
  const auto answering_for = sample.time - *answering_since_;
  if (answering_for < limits_.controller_grace) return "";
  return absl::StrCat("not connected although the controller has answered for ",
                      Seconds(answering_for), " s");
}

}  // namespace jenkins_agent
