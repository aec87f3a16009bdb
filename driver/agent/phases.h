// What an inbound agent's JVM says about itself, read from its output.
//
// Understands hudson-remoting 3.x ("old") and current agent.jar ("current"), java.util.logging's
// two-line default format and the one-line SimpleFormatter format, in any order of lines.
// Sources of the texts: remoting's Engine and Launcher; recorded lines in tests/agent/.
//
// Owned by the supervisor, one per task, kept over relaunches. Not thread-safe. Pure: no I/O.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/supervisor.pb.h"

namespace jenkins_agent {

inline constexpr size_t kMaxLineBytes = 4096;   // the rest of a longer line is not looked at
inline constexpr size_t kMaxFirstLines = 8;     // kept for the classification of an early exit
inline constexpr size_t kMaxQuotedBytes = 512;  // of one line, in details and messages

// Why the controller did not take the agent.
enum class Refusal { kNone, kWrongSecret, kUnknownName, kNameInUse, kOther };
Refusal ClassifyRefusal(absl::string_view reason);
// "wrong secret", "unknown agent name", ...
absl::string_view RefusalName(Refusal refusal);

// Why the controller could not be talked to. None of these is the job's fault.
enum class Unreachable {
  kNone,
  kNoAnswer,  // connection refused, no route, unknown host, timeout
  kStarting,  // 503: the controller is still starting
  kNotFound,  // 404, or an answer without the agent port: wrong url, or inbound agents switched off
  kTooOld,    // it demands a newer agent than this one
  kOther,     // any other HTTP status
};
Unreachable ClassifyUnreachable(absl::string_view message);

// Whether a detail is the controller's demand for a newer agent.jar.
bool DemandsNewerAgent(absl::string_view detail);

// "starting", "locating", ...
absl::string_view PhaseName(pb::AgentPhase phase);
// For machines, one word each, the same for ever: attributes of tasks, labels of metrics. "" for
// none.
absl::string_view PhaseKey(pb::AgentPhase phase);

// Something worth telling. A refusal is told each time, PHASE_WEDGED once (its causes come in
// hundreds of lines); any other phase only when phase or detail change.
struct PhaseChange {
  pb::AgentPhase phase = pb::PHASE_NONE;
  std::string
      detail;  // one line: url, refusal's text, cause of an unreachable controller; or empty
  Refusal refusal = Refusal::kNone;              // with PHASE_REFUSED
  Unreachable unreachable = Unreachable::kNone;  // with PHASE_LOCATING
};

class PhaseTracker {
 public:
  // A JVM was started (again): phase PHASE_STARTING, lines of its predecessor are forgotten.
  void OnLaunch();
  // Bytes as they came from stdout (1) or stderr (2), cut anywhere.
  std::vector<PhaseChange> Feed(int stream, absl::string_view bytes);
  // The streams are at their end: a last line without newline counts too.
  std::vector<PhaseChange> Finish();

  pb::AgentPhase phase() const { return phase_; }
  const std::string& detail() const { return detail_; }
  bool connected_in_this_launch() const { return connected_in_this_launch_; }
  bool ever_connected() const { return ever_connected_; }  // over all launches
  // The last ones since the launch or the last `Connected`.
  Refusal refusal() const { return refusal_; }
  Unreachable unreachable() const { return unreachable_; }
  const std::string& last_error() const { return last_error_; }
  // The launcher printed its usage text.
  bool usage_error() const { return usage_error_; }
  // The JVM could not run the program (wrong class file version, bad option, no such jar, ...).
  bool jvm_error() const { return jvm_error_; }
  // The first lines without a log level: usage errors, the JVM's own complaints.
  const std::vector<std::string>& first_lines() const { return first_lines_; }

 private:
  void TakeLine(int stream, absl::string_view line, std::vector<PhaseChange>& changes);
  void TakeLogMessage(absl::string_view message, bool severe, std::vector<PhaseChange>& changes);
  void TakePlainLine(absl::string_view line, std::vector<PhaseChange>& changes);
  void TakeUnreachable(absl::string_view message, std::vector<PhaseChange>& changes);
  void TakeRefusal(absl::string_view reason, Refusal refusal, std::vector<PhaseChange>& changes);
  void TakeWebSocketFailure(absl::string_view text, std::vector<PhaseChange>& changes);
  void Enter(pb::AgentPhase phase, std::string detail, std::vector<PhaseChange>& changes);

  pb::AgentPhase phase_ = pb::PHASE_NONE;
  std::string detail_;
  std::array<std::string, 2> partial_;  // unfinished line per stream, at most kMaxLineBytes
  bool connected_in_this_launch_ = false;
  bool ever_connected_ = false;
  Refusal refusal_ = Refusal::kNone;
  Unreachable unreachable_ = Unreachable::kNone;
  bool usage_error_ = false;
  bool jvm_error_ = false;
  std::string last_error_;
  std::vector<std::string> first_lines_;
};

}  // namespace jenkins_agent
