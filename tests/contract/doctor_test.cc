// `doctor`, as an operator runs it by the plugin's own file: no Nomad is there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "driver/base/subprocess.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using Json = nlohmann::json;

class Doctor : public testing::Test {
 protected:
  void SetUp() override { REQUIRES_ROOT(); }

  RunResult Run(std::vector<std::string> arguments) const {
    std::vector<std::string> argv = {DRIVER_FILE, "doctor", "--state-dir", dir_.path() + "/state"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    RunOptions options;
    options.timeout = std::chrono::seconds(110);
    options.env = {"NOMAD_ADDR=http://127.0.0.1:1"};
    absl::StatusOr<RunResult> result = jenkins_agent::Run(argv, options);
    EXPECT_OK(result);
    return result.value_or(RunResult());
  }
  static Json Check(const Json& all, const std::string& name) {
    for (const Json& check : all["checks"]) {
      if (check["name"] == name) return check;
    }
    return Json();
  }
  static std::set<std::string> Trials() {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator("/tmp")) {
      if (absl::StrContains(entry.path().native(), "nomad-driver-jenkins-agent-trial.")) {
        found.insert(entry.path());
      }
    }
    return found;
  }

  const TempDir dir_;
};

TEST_F(Doctor, ATrialSandboxRunsAJvmAndLeavesNothing) {
  const std::set<std::string> before = Trials();
  const RunResult result = Run({"--json"});
  const Json all = Json::parse(result.output, nullptr, false);
  ASSERT_TRUE(all.is_object()) << result.output << result.error_tail;
  const Json trial = Check(all, "trial sandbox");
  EXPECT_EQ(trial["result"], "ok") << trial;
  EXPECT_THAT(trial["found"].get<std::string>(),
              MatchesRegex("ready in [0-9.]+ ms; its JVM says: openjdk version .*"));
  EXPECT_EQ(Trials(), before);
  EXPECT_FALSE(std::filesystem::exists(dir_.path() + "/state"));
  EXPECT_EQ(Check(all, "root")["result"], "ok");
  EXPECT_EQ(Check(all, "nomad agent")["result"], "warn") << "there is none";
  EXPECT_EQ(result.exit.exit_code, all["failed"] == 0 ? 0 : 2);
}

TEST_F(Doctor, WhatIsWrongIsSaidWithTheFixAndExitCode2) {
  const RunResult result =
      Run({"--java-home", "/nonexistent", "--controller", "http://127.0.0.1:1/"});
  EXPECT_EQ(result.exit.exit_code, 2) << result.output;
  EXPECT_THAT(result.output, HasSubstr("warn    java"));
  EXPECT_THAT(result.output, HasSubstr("-> install one, such as openjdk-17-jre-headless"));
  EXPECT_THAT(result.output, HasSubstr("warn    trial sandbox"));
  EXPECT_THAT(result.output, HasSubstr("no JDK was found"));
  EXPECT_THAT(result.output, HasSubstr("http://127.0.0.1:1/: Connection refused"));
}

TEST_F(Doctor, AWrongOptionIsAnError) { EXPECT_EQ(Run({"--nonsense"}).exit.exit_code, 1); }

}  // namespace
}  // namespace jenkins_agent
