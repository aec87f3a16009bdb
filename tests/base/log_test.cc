#include "driver/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/fd.h"
#include "driver/base/file.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using namespace std::string_literals;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

std::chrono::system_clock::time_point At(int64_t microseconds) {
  return std::chrono::system_clock::time_point(std::chrono::microseconds(microseconds));
}

std::string Format(absl::string_view message, std::initializer_list<LogField> fields = {}) {
  return FormatLogLine(At(0), LogLevel::kInfo, "m", message, fields);
}

std::string MessageOf(absl::string_view message) {
  return nlohmann::json::parse(Format(message))["@message"];
}

// While it lives, stderr goes into a pipe.
class CapturedStderr {
 public:
  CapturedStderr() : saved_(*Duplicate(STDERR_FILENO)), pipe_(*MakePipe()) {
    ::dup2(pipe_.write.get(), STDERR_FILENO);
    pipe_.write.Reset();
  }
  ~CapturedStderr() { Restore(); }
  std::string Take() {
    Restore();
    return *ReadAll(pipe_.read.get(), 1 << 20);
  }
  void CloseReader() { pipe_.read.Reset(); }

 private:
  void Restore() {
    if (saved_) ::dup2(saved_.get(), STDERR_FILENO);
    saved_.Reset();
  }
  Fd saved_;
  Pipe pipe_;
};

TEST(LogLine, HasExactlyTheFormOfHclog) {
  EXPECT_EQ(FormatLogLine(At(1767323045678901), LogLevel::kWarn, "jenkins-agent", "hello",
                          {{"task_id", "a/b"}}),
            R"({"@level":"warn","@message":"hello","task_id":"a/b","@module":"jenkins-agent",)"
            R"("@timestamp":"2026-01-02T03:04:05.678901Z"})");
}

TEST(LogLine, AlwaysHasSixFractionalDigits) {
  EXPECT_THAT(FormatLogLine(At(1767323045000000), LogLevel::kInfo, "m", ""),
              HasSubstr("\"2026-01-02T03:04:05.000000Z\""));
}

TEST(LogLine, NamesEveryLevelAsHclogDoes) {
  const std::vector<std::pair<LogLevel, std::string>> names = {{LogLevel::kTrace, "trace"},
                                                               {LogLevel::kDebug, "debug"},
                                                               {LogLevel::kInfo, "info"},
                                                               {LogLevel::kWarn, "warn"},
                                                               {LogLevel::kError, "error"}};
  for (const auto& [level, name] : names) {
    EXPECT_EQ(nlohmann::json::parse(FormatLogLine(At(0), level, "m", "x"))["@level"], name);
  }
}

TEST(LogLine, EscapesWhatJsonDoesNotAllow) {
  const std::string text = "quote\" slash\\ line\nfeed\ttab\x01\x1f nul\0 end"s;
  EXPECT_EQ(MessageOf(text), text);
  EXPECT_THAT(Format("a\nb"), Not(HasSubstr("\n")));
}

TEST(LogLine, ForeignJsonStaysInsideAString) {
  const std::string foreign = R"({"@message": 1, "@level": ["x"]})";
  const nlohmann::json line = nlohmann::json::parse(Format(foreign, {{"output", foreign}}));
  EXPECT_EQ(line["@message"], foreign);
  EXPECT_EQ(line["output"], foreign);
}

TEST(LogLine, ReplacesInvalidUtf8) {
  EXPECT_EQ(MessageOf("a\xFFz"), "a\uFFFDz");
  EXPECT_EQ(MessageOf("\xC0\x80"), "\uFFFD\uFFFD");            // overlong
  EXPECT_EQ(MessageOf("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // surrogate
  EXPECT_EQ(MessageOf("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(MessageOf("cut \xE2\x82"), "cut \uFFFD\uFFFD");
  EXPECT_EQ(MessageOf("\u00e9\u20ac\U0001F600"), "\u00e9\u20ac\U0001F600");
}

TEST(LogLine, StaysBelowTheReadersLimitAndWhole) {
  const std::string control(200'000, '\x01');  // six bytes each when escaped
  const std::string invalid(200'000, '\xFF');
  const std::string line = Format(control, {{"a", invalid},
                                            {"b", control},
                                            {"c", invalid},
                                            {"d", control},
                                            {"e", invalid},
                                            {"f", control}});
  EXPECT_LT(line.size(), kMaxLogLine);
  const nlohmann::json parsed = nlohmann::json::parse(line);
  EXPECT_THAT(parsed["@message"].get<std::string>(), EndsWith("..."));
  EXPECT_THAT(parsed["a"].get<std::string>(), EndsWith("..."));
  EXPECT_EQ(parsed["more"], "left out");
}

TEST(LogLine, IsNotCutInsideACharacter) {
  std::string text;
  for (int i = 0; i < 40'000; ++i) text += "\u20ac";
  EXPECT_THAT(MessageOf(text), Not(HasSubstr("\uFFFD")));
}

TEST(Log, WritesOneLinePerCallFromManyThreads) {
  constexpr int kThreads = 4;
  constexpr int kLines = 50;
  CapturedStderr captured;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < kLines; ++i) {
        Log(LogLevel::kInfo, absl::StrCat(t, "-", i), {{"thread", absl::StrCat(t)}});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::istringstream lines(captured.Take());
  std::set<std::string> messages;
  for (std::string line; std::getline(lines, line);) {
    messages.insert(nlohmann::json::parse(line)["@message"].get<std::string>());
  }
  EXPECT_EQ(messages.size(), size_t{kThreads} * kLines);
}

TEST(Log, SurvivesAReaderThatIsGone) {
  ::signal(SIGPIPE, SIG_IGN);
  CapturedStderr captured;
  captured.CloseReader();
  Log(LogLevel::kInfo, "nobody listens");
  Log(LogLevel::kInfo, "still nobody");
}

}  // namespace
}  // namespace jenkins_agent
