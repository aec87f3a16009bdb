#include "driver/base/log.h"

#include <spdlog/formatter.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxLogKey = 128;
constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Length of the well-formed UTF-8 sequence at the start of `text` (Unicode table 3-7); 0: none.
size_t SequenceLength(absl::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  if (text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const bool overlong = (first == 0xE0 && byte(1) < 0xA0) || (first == 0xF0 && byte(1) < 0x90);
  const bool surrogate = first == 0xED && byte(1) > 0x9F;
  const bool beyond = first == 0xF4 && byte(1) > 0x8F;
  return overlong || surrogate || beyond ? 0 : length;
}

// One character as it stands inside a JSON string.
std::string EscapeCharacter(absl::string_view character) {
  const char c = character[0];
  if (c == '"' || c == '\\') return absl::StrCat("\\", character);
  if (c == '\n') return "\\n";
  if (c == '\t') return "\\t";
  if (static_cast<unsigned char>(c) < 0x20) return absl::StrFormat("\\u%04x", c);
  return std::string(character);
}

// Appends `text` as a JSON string whose content is at most `limit` bytes, escapes included.
void AppendJsonString(std::string& out, absl::string_view text, size_t limit) {
  constexpr absl::string_view kCut = "...";
  out += '"';
  const size_t start = out.size();
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    const std::string character =
        length == 0 ? std::string(kReplacement) : EscapeCharacter(text.substr(0, length));
    if (out.size() - start + character.size() + kCut.size() > limit) {
      absl::StrAppend(&out, kCut);
      break;
    }
    out += character;
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out += '"';
}

// The members of the object that do not depend on time, level and module.
std::string FormatMembers(absl::string_view message, std::initializer_list<LogField> fields) {
  constexpr size_t kHeadRoom = 1024;  // level, module, timestamp
  std::string members = "\"@message\":";
  AppendJsonString(members, message, kMaxLogMessage);
  for (const auto& [key, value] : fields) {
    if (members.size() + kMaxLogKey + kMaxLogValue + kHeadRoom > kMaxLogLine) {
      absl::StrAppend(&members, ",\"more\":\"left out\"");
      break;
    }
    members += ',';
    AppendJsonString(members, key, kMaxLogKey);
    members += ':';
    AppendJsonString(members, value, kMaxLogValue);
  }
  return members;
}

// hclog's names: "warn", where spdlog says "warning".
absl::string_view LevelName(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
      return "trace";
    case spdlog::level::debug:
      return "debug";
    case spdlog::level::info:
      return "info";
    case spdlog::level::warn:
      return "warn";
    default:
      return "error";
  }
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kTrace:
      return spdlog::level::trace;
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

// go-plugin parses the timestamp with exactly six fractional digits, and panics when one of the "@"
// members is not a string (go-plugin log_entry.go).
std::string FormatLine(std::chrono::system_clock::time_point time, spdlog::level::level_enum level,
                       absl::string_view module, absl::string_view members) {
  std::string line =
      absl::StrCat("{\"@level\":\"", LevelName(level), "\",", members, ",\"@module\":");
  AppendJsonString(line, module, kMaxLogKey);
  absl::StrAppend(
      &line, ",\"@timestamp\":\"",
      absl::FormatTime("%Y-%m-%dT%H:%M:%E6SZ", absl::FromChrono(time), absl::UTCTimeZone()), "\"}");
  return line;
}

// The payload of a message is what FormatMembers made.
class HclogFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const std::string line =
        FormatLine(message.time, message.level,
                   absl::string_view(message.logger_name.data(), message.logger_name.size()),
                   absl::string_view(message.payload.data(), message.payload.size()));
    out.append(line.data(), line.data() + line.size());
    out.push_back('\n');
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<HclogFormatter>();
  }
};

// spdlog's own stderr sink throws when a write fails.
class StderrSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  StderrSink() : base_sink(std::make_unique<HclogFormatter>()) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    for (size_t done = 0; done < line.size();) {
      const ssize_t written = ::write(STDERR_FILENO, line.data() + done, line.size() - done);
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return;  // EPIPE: the agent is gone, we are not
      done += written;
    }
  }
  void flush_() override {}
};

// Never destroyed: threads may log until the process is gone.
spdlog::logger& Logger(absl::string_view module) {
  static spdlog::logger* const logger = [module] {
    auto* created = new spdlog::logger(std::string(module), std::make_shared<StderrSink>());
    created->set_level(spdlog::level::trace);  // Nomad drops what is below its own level
    created->set_error_handler([](const std::string&) {});  // the default writes plain text
    return created;
  }();
  return *logger;
}

}  // namespace

void InitLog(absl::string_view module) { Logger(module); }

void Log(LogLevel level, absl::string_view message, std::initializer_list<LogField> fields) {
  const std::string members = FormatMembers(message, fields);
  Logger("jenkins-agent")
      .log(ToSpdlog(level), spdlog::string_view_t(members.data(), members.size()));
}

std::string FormatLogLine(std::chrono::system_clock::time_point time, LogLevel level,
                          absl::string_view module, absl::string_view message,
                          std::initializer_list<LogField> fields) {
  return FormatLine(time, ToSpdlog(level), module, FormatMembers(message, fields));
}

}  // namespace jenkins_agent
