// The log of the plugin and of its workers: one JSON object per line on stderr, in the form that
// go-plugin hands on to the Nomad agent's own log.
//
// One log per process; every function may be called from any thread. Nothing here fails: a reader
// of stderr that is gone (an agent that was restarted) costs the line, never the process, as long
// as SIGPIPE is ignored.
#pragma once

#include <chrono>
#include <initializer_list>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"

namespace jenkins_agent {

enum class LogLevel { kTrace, kDebug, kInfo, kWarn, kError };
using LogField = std::pair<absl::string_view, absl::string_view>;  // key, value; keys are ours

// A reader of at most 64 KiB per line follows. Longer texts are cut, and "..." says so.
inline constexpr size_t kMaxLogLine = 60 << 10;
inline constexpr size_t kMaxLogMessage = 32 << 10;
inline constexpr size_t kMaxLogValue = 8 << 10;

// Names the program in every line ("@module"). The first call counts; without one it is
// "jenkins-agent".
void InitLog(absl::string_view module);

// Writes one line:
//   Log(LogLevel::kInfo, "task started", {{"task_id", id}});
void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields = {});

// The line that Log writes, without the line feed.
std::string FormatLogLine(std::chrono::system_clock::time_point time, LogLevel level,
                          absl::string_view module, absl::string_view message,
                          std::initializer_list<LogField> fields = {});

}  // namespace jenkins_agent
