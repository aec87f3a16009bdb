#include "driver/agent/phases.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "driver/base/utf8.h"

namespace jenkins_agent {
namespace {

constexpr absl::string_view kLevels[] = {"SEVERE", "WARNING", "INFO",  "CONFIG",
                                         "FINE",   "FINER",   "FINEST"};

// HotSpot's last word under -XX:+ExitOnOutOfMemoryError (debug.cpp, report_java_out_of_memory).
constexpr absl::string_view kTerminating = "Terminating due to java.lang.OutOfMemoryError";

struct LogMessage {
  absl::string_view level;  // empty: not a log message
  absl::string_view text;
};

bool IsLevel(absl::string_view word) {
  return std::find(std::begin(kLevels), std::end(kLevels), word) != std::end(kLevels);
}

// "INFO: text" (second line of the default format) or "time|INFO|source|text" (one-line format).
LogMessage SplitLogMessage(absl::string_view line) {
  const size_t colon = line.find(": ");
  if (colon != absl::string_view::npos && IsLevel(line.substr(0, colon))) {
    return {line.substr(0, colon), line.substr(colon + 2)};
  }
  const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits('|', 3));
  if (fields.size() == 4 && IsLevel(fields[1])) return {fields[1], fields[3]};
  return {};
}

std::string Quoted(absl::string_view text) {
  // A JVM writes in its locale's encoding, and the cut may be inside a character.
  return ToUtf8(absl::StripAsciiWhitespace(text.substr(0, kMaxQuotedBytes)));
}

// The part of `text` behind `marker`; false when the marker is not there.
bool TextBehind(absl::string_view text, absl::string_view marker, absl::string_view& rest) {
  const size_t at = text.find(marker);
  if (at == absl::string_view::npos) return false;
  rest = text.substr(at + marker.size());
  return true;
}

bool IsStartLine(absl::string_view message) {
  return absl::EndsWith(message, " agent is running in headless mode.") ||  // old: Hudson, Jenkins
         absl::StartsWith(message, "Setting up agent: ") ||
         (absl::StartsWith(message, "Using ") &&
          absl::EndsWith(message, " as a remoting work directory"));
}

// Lines of the java launcher and of HotSpot before, or instead of, the program's first line.
bool IsJvmError(absl::string_view line) {
  for (absl::string_view text :
       {"Error: Could not create the Java Virtual Machine",
        "Error: Could not find or load main class", "Error: Unable to access jarfile",
        "Error: Invalid or corrupt jarfile",
        "Error: LinkageError occurred while loading main class", "Error: could not open ",
        "Error occurred during initialization of", "UnsupportedClassVersionError",
        "Setting a Security Manager is not supported"}) {
    if (absl::StrContains(line, text)) return true;
  }
  return false;
}

// After these an agent stays alive, keeps its socket and serves nobody (jenkins-agent.md 0.2). Heap
// exhaustion is among them for JVMs whose options take ExitOnOutOfMemoryError away.
bool IsWedgeLine(absl::string_view line) {
  if (absl::StartsWith(line, kTerminating)) return false;  // with them it is on its way out
  for (absl::string_view text :
       {"Reader thread killed by ", "unable to create native thread",
        "unable to create new native thread", "Failed to start the native thread for ",
        "java.lang.OutOfMemoryError: Java heap space",
        "java.lang.OutOfMemoryError: GC overhead limit exceeded",
        "java.lang.OutOfMemoryError: Metaspace",
        "java.lang.OutOfMemoryError thrown from the UncaughtExceptionHandler"}) {
    if (absl::StrContains(line, text)) return true;
  }
  return false;
}

// Both generations: "java -jar slave.jar [options...] <secret key> <slave name>".
bool IsUsageLine(absl::string_view line) {
  return absl::StartsWith(line, "java -jar ") && absl::StrContains(line, "[options...]");
}

}  // namespace

Refusal ClassifyRefusal(absl::string_view reason) {
  if (absl::StrContains(reason, "Unauthorized access") ||
      absl::StrContains(reason, "Authorization failure")) {
    return Refusal::kWrongSecret;
  }
  if (absl::StrContains(reason, "No such slave") ||
      absl::StrContains(reason, "Unknown client name")) {
    return Refusal::kUnknownName;
  }
  if (absl::StrContains(reason, "is already connected to this")) return Refusal::kNameInUse;
  return Refusal::kOther;
}

absl::string_view RefusalName(Refusal refusal) {
  switch (refusal) {
    case Refusal::kNone:
      return "not refused";
    case Refusal::kWrongSecret:
      return "wrong secret";
    case Refusal::kUnknownName:
      return "unknown agent name";
    case Refusal::kNameInUse:
      return "name in use";
    case Refusal::kOther:
      break;
  }
  return "connection rejected";
}

bool DemandsNewerAgent(absl::string_view detail) {
  return absl::StrContains(detail, "Agent version ") &&
         absl::StrContains(detail, " or newer is required");
}

Unreachable ClassifyUnreachable(absl::string_view message) {
  if (DemandsNewerAgent(message)) return Unreachable::kTooOld;
  if (absl::StrContains(message, "is invalid: 503") ||
      absl::StrContains(message, "response code=503") ||
      absl::StrContains(message, "is not ready: 503")) {
    return Unreachable::kStarting;
  }
  if (absl::StrContains(message, "is invalid: 404") ||
      absl::StrContains(message, "response code=404") ||
      absl::EndsWith(message, " is not Jenkins") || absl::EndsWith(message, " is not Hudson")) {
    return Unreachable::kNotFound;
  }
  if (absl::StrContains(message, " is invalid: ") || absl::StrContains(message, "response code=") ||
      absl::StrContains(message, "/login is not ready")) {
    return Unreachable::kOther;
  }
  for (absl::string_view text :
       {"Failed to connect to ", " is not reachable on host ", "Connection refused",
        "Connection timed out", "Connection reset", "No route to host"}) {
    if (absl::StrContains(message, text)) return Unreachable::kNoAnswer;
  }
  return Unreachable::kNone;
}

absl::string_view PhaseName(pb::AgentPhase phase) {
  switch (phase) {
    case pb::PHASE_STARTING:
      return "starting";
    case pb::PHASE_LOCATING:
      return "locating the controller";
    case pb::PHASE_HANDSHAKING:
      return "handshaking";
    case pb::PHASE_CONNECTED:
      return "connected";
    case pb::PHASE_TERMINATED:
      return "disconnected";
    case pb::PHASE_REFUSED:
      return "refused";
    case pb::PHASE_WEDGED:
      return "wedged";
    default:
      return "not started";
  }
}

absl::string_view PhaseKey(pb::AgentPhase phase) {
  switch (phase) {
    case pb::PHASE_STARTING:
      return "starting";
    case pb::PHASE_LOCATING:
      return "locating";
    case pb::PHASE_HANDSHAKING:
      return "handshaking";
    case pb::PHASE_CONNECTED:
      return "connected";
    case pb::PHASE_TERMINATED:
      return "terminated";
    case pb::PHASE_REFUSED:
      return "refused";
    case pb::PHASE_WEDGED:
      return "wedged";
    default:
      return "";
  }
}

void PhaseTracker::OnLaunch() {
  const bool ever_connected = ever_connected_;
  *this = PhaseTracker();
  ever_connected_ = ever_connected;
  phase_ = pb::PHASE_STARTING;
}

std::vector<PhaseChange> PhaseTracker::Feed(int stream, absl::string_view bytes) {
  std::vector<PhaseChange> changes;
  std::string& partial = partial_[stream == 1 ? 0 : 1];
  while (!bytes.empty()) {
    const size_t newline = bytes.find('\n');
    const absl::string_view piece = bytes.substr(0, newline);
    partial.append(piece.data(), std::min(piece.size(), kMaxLineBytes - partial.size()));
    if (newline == absl::string_view::npos) break;
    TakeLine(stream, partial, changes);
    partial.clear();
    bytes.remove_prefix(newline + 1);
  }
  return changes;
}

std::vector<PhaseChange> PhaseTracker::Finish() {
  std::vector<PhaseChange> changes;
  for (int stream : {1, 2}) {
    std::string& partial = partial_[stream - 1];
    if (!partial.empty()) TakeLine(stream, partial, changes);
    partial.clear();
  }
  return changes;
}

void PhaseTracker::TakeLine(int stream, absl::string_view line, std::vector<PhaseChange>& changes) {
  line = absl::StripTrailingAsciiWhitespace(line);
  if (line.empty()) return;
  const LogMessage log = SplitLogMessage(line);
  if (connected_in_this_launch_ && IsWedgeLine(line)) {
    last_error_ = Quoted(log.level.empty() ? line : log.text);
    return Enter(pb::PHASE_WEDGED, last_error_, changes);
  }
  // The phase lines are on stderr; what the JVM itself says may come on either stream.
  if (stream == 2 && !log.level.empty()) {
    TakeLogMessage(log.text, log.level == "SEVERE", changes);
  } else {
    TakePlainLine(line, changes);
  }
}

void PhaseTracker::TakeLogMessage(absl::string_view message, bool severe,
                                  std::vector<PhaseChange>& changes) {
  absl::string_view rest;
  if (TextBehind(message, "The server rejected the connection: ", rest) ||
      TextBehind(message, "Local headers refused by remote: ", rest) ||
      TextBehind(message, "Local headers permanently rejected by remote: ", rest)) {
    TakeRefusal(rest, ClassifyRefusal(rest), changes);
  } else if (message == "Connected") {
    connected_in_this_launch_ = ever_connected_ = true;
    refusal_ = Refusal::kNone;
    unreachable_ = Unreachable::kNone;
    last_error_.clear();
    Enter(pb::PHASE_CONNECTED, "", changes);
  } else if (message == "Terminated") {
    Enter(pb::PHASE_TERMINATED, "", changes);
  } else if (absl::StartsWith(message, "Locating server among ")) {
    Enter(pb::PHASE_LOCATING, "", changes);
  } else if (message == "Handshaking" || message == "WebSocket connection open") {
    unreachable_ = Unreachable::kNone;
    Enter(pb::PHASE_HANDSHAKING, "", changes);
  } else if (absl::ConsumePrefix(&(rest = message), "Connecting to ")) {
    unreachable_ = Unreachable::kNone;
    Enter(pb::PHASE_HANDSHAKING, Quoted(rest.substr(0, rest.find(" (retrying:"))), changes);
  } else if (absl::ConsumePrefix(&(rest = message), "Failed to connect: ")) {
    TakeWebSocketFailure(rest, changes);
  } else if (IsStartLine(message)) {
    Enter(pb::PHASE_STARTING, "", changes);
  } else {
    if (severe) last_error_ = Quoted(message);
    TakeUnreachable(message, changes);
  }
}

void PhaseTracker::TakePlainLine(absl::string_view line, std::vector<PhaseChange>& changes) {
  if (IsUsageLine(line)) {
    usage_error_ = phase_ <= pb::PHASE_STARTING;
    return;
  }
  if (!connected_in_this_launch_ && IsJvmError(line)) jvm_error_ = true;
  if (absl::StartsWith(line, kTerminating) ||
      absl::StrContains(line, "[warning][os,thread] Failed to start")) {
    last_error_ = Quoted(line);
  }
  if (first_lines_.size() < kMaxFirstLines && phase_ <= pb::PHASE_STARTING) {
    // "two arguments required, but got [SECRET, ..]": the arguments are not for operators' eyes.
    first_lines_.push_back(Quoted(line.substr(0, line.find(", but got ["))));
  }
  // Current agents log "Could not locate server among [..]" with the cause in the exception's line.
  if (phase_ != pb::PHASE_CONNECTED) {
    absl::string_view cause = line;
    if (TextBehind(line, "java.io.IOException: ", cause)) TakeUnreachable(cause, changes);
  }
}

void PhaseTracker::TakeUnreachable(absl::string_view message, std::vector<PhaseChange>& changes) {
  const Unreachable unreachable = ClassifyUnreachable(message);
  if (unreachable == Unreachable::kNone || phase_ == pb::PHASE_CONNECTED) return;
  unreachable_ = unreachable;
  last_error_ = Quoted(message);
  Enter(pb::PHASE_LOCATING, Quoted(message), changes);
}

void PhaseTracker::TakeRefusal(absl::string_view reason, Refusal refusal,
                               std::vector<PhaseChange>& changes) {
  // A current agent sums up each refused attempt with these words; the reason came before.
  if (absl::StartsWith(reason, "None of the protocols") && phase_ == pb::PHASE_REFUSED) return;
  refusal_ = refusal;
  phase_ = pb::PHASE_REFUSED;
  detail_ = last_error_ = Quoted(reason);
  changes.push_back({phase_, detail_, refusal_, Unreachable::kNone});
}

// Of the controller's HTTP answer (403: wrong secret; 400: unknown name, or in use;
// jenkins-agent.md 1.3) the agent names the status, or nothing.
void PhaseTracker::TakeWebSocketFailure(absl::string_view text, std::vector<PhaseChange>& changes) {
  if (absl::StrContains(text, "403")) return TakeRefusal(text, Refusal::kWrongSecret, changes);
  if (absl::StrContains(text, "400") || absl::StartsWith(text, "Handshake error")) {
    return TakeRefusal(absl::StrCat(absl::StripSuffix(text, "."),
                                    ": unknown name, name in use, or a proxy in between that "
                                    "passes no WebSocket on"),
                       Refusal::kOther, changes);
  }
  unreachable_ = absl::StrContains(text, "503") ? Unreachable::kStarting : Unreachable::kNoAnswer;
  last_error_ = Quoted(text);
  Enter(pb::PHASE_LOCATING, Quoted(text), changes);
}

void PhaseTracker::Enter(pb::AgentPhase phase, std::string detail,
                         std::vector<PhaseChange>& changes) {
  // The retry of an unreachable controller is no news: keep saying why, not "locating" in between.
  if (phase == pb::PHASE_LOCATING && phase_ == phase && detail.empty()) return;
  if (phase == phase_ && (detail == detail_ || phase == pb::PHASE_WEDGED)) return;
  phase_ = phase;
  detail_ = std::move(detail);
  PhaseChange change{phase_, detail_};
  if (phase_ == pb::PHASE_LOCATING) change.unreachable = unreachable_;
  changes.push_back(std::move(change));
}

}  // namespace jenkins_agent
