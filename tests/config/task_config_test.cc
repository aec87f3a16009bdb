#include "driver/config/task_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/config/msgpack_bytes.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

void ExpectRefused(const TaskConfig& config, const std::string& message) {
  EXPECT_THAT(ValidateTaskConfig(config), StatusIs(absl::StatusCode::kInvalidArgument, message));
}

void ExpectDefaults(const TaskConfig& config) {
  EXPECT_FALSE(config.has_agent);
  EXPECT_EQ(config.agent.url, "");
  EXPECT_EQ(config.agent.name, "");
  EXPECT_EQ(config.agent.secret_file, "");
  EXPECT_EQ(config.agent.tunnel, "");
  EXPECT_EQ(config.agent.web_socket, std::nullopt);
  EXPECT_THAT(config.agent.web_socket_headers, IsEmpty());
  EXPECT_EQ(config.agent.direct, "");
  EXPECT_EQ(config.agent.instance_identity, "");
  EXPECT_EQ(config.agent.ca_file, "");
  EXPECT_THAT(config.agent.extra_args, IsEmpty());
  EXPECT_EQ(config.agent.root_dir, "/local/agent");
  EXPECT_EQ(config.agent.jar, "auto");
  EXPECT_EQ(config.java_home, "");
  EXPECT_EQ(config.java_version, "");
  EXPECT_THAT(config.jvm_options, IsEmpty());
  EXPECT_EQ(config.jar_path, "");
  EXPECT_EQ(config.class_name, "");
  EXPECT_EQ(config.class_path, "");
  EXPECT_EQ(config.command, "");
  EXPECT_THAT(config.args, IsEmpty());
  EXPECT_EQ(config.work_dir, "");
  EXPECT_EQ(config.pids_limit, 2048);
  EXPECT_FALSE(config.cpu_hard_limit);
  EXPECT_EQ(config.io_weight, 0);
}

TEST(DecodeTaskConfigTest, EmptyBytesAreAllDefaults) {
  ASSERT_OK_AND_ASSIGN(const TaskConfig config, DecodeTaskConfig(""));
  ExpectDefaults(config);
}

TEST(DecodeTaskConfigTest, NilOptionsAreAllDefaults) {
  ASSERT_OK_AND_ASSIGN(const TaskConfig config, DecodeTaskConfig(Map({{"agent", kNil},
                                                                      {"args", kNil},
                                                                      {"class", kNil},
                                                                      {"class_path", kNil},
                                                                      {"command", kNil},
                                                                      {"jar_path", kNil},
                                                                      {"java_home", kNil},
                                                                      {"java_version", kNil},
                                                                      {"jvm_options", kNil},
                                                                      {"pids_limit", kNil},
                                                                      {"work_dir", kNil}})));
  ExpectDefaults(config);
}

TEST(DecodeTaskConfigTest, AgentBlockWithEveryOption) {
  // As Nomad delivers it: every attribute, keys sorted.
  const std::string agent =
      Map({{"ca_file", Str("/secrets/ca.pem")},
           {"direct", kNil},
           {"extra_args", Strings({"-noReconnectAfter", "1h"})},
           {"instance_identity", kNil},
           {"jar", Str("/opt/agent.jar")},
           {"name", Str("linux-1")},
           {"root_dir", Str("/local/work")},
           {"secret_file", Str("/secrets/agent")},
           {"tunnel", kNil},
           {"url", Str("https://jenkins.example/")},
           {"web_socket", kTrue},
           {"web_socket_headers", List({Map({{"X-A", Str("1")}}), Map({{"X-B", Str("2")}})})}});
  ASSERT_OK_AND_ASSIGN(const TaskConfig config,
                       DecodeTaskConfig(Map({{"agent", agent},
                                             {"java_version", Str("17")},
                                             {"jvm_options", Strings({"-Xmx128m"})},
                                             {"pids_limit", Num(512)},
                                             {"cpu_hard_limit", kTrue},
                                             {"io_weight", Num(200)}})));
  EXPECT_TRUE(config.has_agent);
  EXPECT_EQ(config.agent.url, "https://jenkins.example/");
  EXPECT_EQ(config.agent.name, "linux-1");
  EXPECT_EQ(config.agent.secret_file, "/secrets/agent");
  EXPECT_EQ(config.agent.web_socket, true);
  EXPECT_THAT(config.agent.web_socket_headers, ElementsAre(Pair("X-A", "1"), Pair("X-B", "2")));
  EXPECT_EQ(config.agent.ca_file, "/secrets/ca.pem");
  EXPECT_THAT(config.agent.extra_args, ElementsAre("-noReconnectAfter", "1h"));
  EXPECT_EQ(config.agent.root_dir, "/local/work");
  EXPECT_EQ(config.agent.jar, "/opt/agent.jar");
  EXPECT_EQ(config.java_version, "17");
  EXPECT_THAT(config.jvm_options, ElementsAre("-Xmx128m"));
  EXPECT_EQ(config.pids_limit, 512);
  EXPECT_TRUE(config.cpu_hard_limit);
  EXPECT_EQ(config.io_weight, 200);
}

TEST(DecodeTaskConfigTest, DirectAgent) {
  ASSERT_OK_AND_ASSIGN(const TaskConfig config,
                       DecodeTaskConfig(Map({{"agent", Map({{"direct", Str("jenkins:50000")},
                                                            {"instance_identity", Str("MIIB")},
                                                            {"tunnel", kNil}})}})));
  EXPECT_EQ(config.agent.direct, "jenkins:50000");
  EXPECT_EQ(config.agent.instance_identity, "MIIB");
}

TEST(DecodeTaskConfigTest, TunnelledAgent) {
  ASSERT_OK_AND_ASSIGN(const TaskConfig config,
                       DecodeTaskConfig(Map({{"agent", Map({{"tunnel", Str(":50000")}})}})));
  EXPECT_EQ(config.agent.tunnel, ":50000");
}

TEST(DecodeTaskConfigTest, AnEmptyAgentBlockIsPresent) {
  ASSERT_OK_AND_ASSIGN(const TaskConfig config, DecodeTaskConfig(Map({{"agent", Map({})}})));
  EXPECT_TRUE(config.has_agent);
  EXPECT_EQ(config.agent.root_dir, "/local/agent");
}

TEST(DecodeTaskConfigTest, ProgramsOfTheJavaDriver) {
  ASSERT_OK_AND_ASSIGN(const TaskConfig jar,
                       DecodeTaskConfig(Map({{"jar_path", Str("local/hello.jar")},
                                             {"args", Strings({"a", ""})},
                                             {"java_home", Str("/usr/lib/jvm/java-17")}})));
  EXPECT_EQ(jar.jar_path, "local/hello.jar");
  EXPECT_THAT(jar.args, ElementsAre("a", ""));
  EXPECT_EQ(jar.java_home, "/usr/lib/jvm/java-17");
  ASSERT_OK_AND_ASSIGN(
      const TaskConfig main_class,
      DecodeTaskConfig(Map({{"class", Str("org.Main")}, {"class_path", Str("local/a:local/b")}})));
  EXPECT_EQ(main_class.class_name, "org.Main");
  EXPECT_EQ(main_class.class_path, "local/a:local/b");
}

TEST(DecodeTaskConfigTest, Command) {
  ASSERT_OK_AND_ASSIGN(const TaskConfig config,
                       DecodeTaskConfig(Map({{"command", Str("/bin/sh")},
                                             {"args", Strings({"-c", "id"})},
                                             {"work_dir", Str("/local")}})));
  EXPECT_EQ(config.command, "/bin/sh");
  EXPECT_THAT(config.args, ElementsAre("-c", "id"));
  EXPECT_EQ(config.work_dir, "/local");
}

TEST(DecodeTaskConfigTest, DecodesAndValidates) {
  EXPECT_THAT(DecodeTaskConfig(Map({{"pids_limit", kTrue}})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "config: pids_limit: found a bool, expected a number"));
  EXPECT_THAT(DecodeTaskConfig(Map({{"pids_limit", Num(1)}})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("config: pids_limit: 1 is too small")));
  EXPECT_THAT(DecodeTaskConfig(Hex("81")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("config: not the msgpack")));
}

// Under the sanitizers: whatever one wrong byte makes of it, it is a configuration or an error.
TEST(DecodeTaskConfigTest, SurvivesEveryOneByteChange) {
  const std::string valid = Map(
      {{"agent",
        Map({{"url", Str("http://h")}, {"web_socket_headers", List({Map({{"a", Str("b")}})})}})},
       {"jvm_options", Strings({"-Xmx1g"})},
       {"pids_limit", Num(512)}});
  ASSERT_OK(DecodeTaskConfig(valid));
  for (size_t i = 0; i < valid.size(); ++i) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string changed = valid;
      changed[i] = static_cast<char>(byte);
      const auto config = DecodeTaskConfig(changed);
      if (!config.ok()) {
        ASSERT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
      }
    }
  }
}

TEST(ValidateTaskConfigTest, IoWeightBounds) {
  for (const int64_t weight : {0, 10, 1000}) EXPECT_OK(ValidateTaskConfig({.io_weight = weight}));
  for (const int64_t weight : {-1, 9, 1001}) {
    ExpectRefused({.io_weight = weight},
                  absl::StrCat("config: io_weight: ", weight,
                               " is out of range (allowed: 10 to 1000; other tasks have 100)"));
  }
}

TEST(ValidateTaskConfigTest, PidsLimitBounds) {
  EXPECT_OK(ValidateTaskConfig({.pids_limit = 40}));
  EXPECT_OK(ValidateTaskConfig({.pids_limit = 4194304}));
  ExpectRefused({.pids_limit = 3},
                "config: pids_limit: 3 is too small; a JVM needs at least 40 (allowed: 40 to "
                "4194304)");
  ExpectRefused({.pids_limit = 4194305},
                "config: pids_limit: 4194305 is too large; Linux has at most 4194304 process ids "
                "(allowed: 40 to 4194304)");
  ExpectRefused({.pids_limit = -1},
                "config: pids_limit: -1 is too small; a JVM needs at least 40 (allowed: 40 to "
                "4194304)");
}

TEST(ValidateTaskConfigTest, OneWayToNameTheProgram) {
  const std::string both =
      " are both set; choose one way to name the program: agent { }, jar_path or class, or command";
  ExpectRefused({.has_agent = true, .command = "sh"}, "config: \"agent\" and \"command\"" + both);
  ExpectRefused({.has_agent = true, .jar_path = "a.jar"},
                "config: \"agent\" and \"jar_path\"" + both);
  ExpectRefused({.jar_path = "a.jar", .class_name = "A"},
                "config: \"jar_path\" and \"class\"" + both);
  ExpectRefused({.class_name = "A", .command = "sh"}, "config: \"class\" and \"command\"" + both);
}

TEST(ValidateTaskConfigTest, OptionsThatWouldHaveNoEffectAreErrors) {
  const std::string no_effect =
      ": has no effect on \"command\"; remove it, or name the program by agent { }, jar_path or "
      "class";
  ExpectRefused({.jvm_options = {"-Xmx1g"}, .command = "sh"}, "config: jvm_options" + no_effect);
  ExpectRefused({.java_home = "/j", .command = "sh"}, "config: java_home" + no_effect);
  ExpectRefused({.java_version = "17", .command = "sh"}, "config: java_version" + no_effect);
  ExpectRefused({.jar_path = "a.jar", .class_path = "x"},
                "config: class_path: is only used with class; remove it or set class");
  const std::string misplaced =
      "config: args: belongs to jar_path, class, command or an image's own program; further "
      "options "
      "of an agent go into agent.extra_args";
  ExpectRefused({.has_agent = true, .args = {"x"}}, misplaced);
  ExpectRefused({.args = {"x"}}, misplaced);
}

TEST(ValidateTaskConfigTest, OneJava) {
  ExpectRefused(
      {.java_home = "/j", .java_version = "17"},
      "config: \"java_home\" and \"java_version\" are both set; java_home already decides "
      "which Java runs, remove one of them");
}

TEST(ValidateTaskConfigTest, Values) {
  ExpectRefused({.java_home = "jdk"},
                "config: java_home: \"jdk\" is not an absolute path; start it with '/'");
  ExpectRefused({.work_dir = "local"},
                "config: work_dir: \"local\" is not an absolute path; start it with '/'");
  ExpectRefused(
      {.java_version = "1.8"},
      "config: java_version: \"1.8\" is not a Java version (allowed: 8 to 99, such as 17)");
  ExpectRefused({.class_name = "-version"},
                "config: class: \"-version\" is not a Java class name, such as org.example.Main");
}

TEST(ValidateTaskConfigTest, JvmOptionsDoNotNameTheProgram) {
  EXPECT_OK(ValidateTaskConfig({.jvm_options = {"-Xmx1g", "--add-opens", "a/b=ALL-UNNAMED"}}));
  ExpectRefused({.jvm_options = {""}}, "config: jvm_options: contains an empty string; remove it");
  ExpectRefused({.jvm_options = {"-jar", "x"}},
                "config: jvm_options: contains -jar; name the program by agent { }, jar_path or "
                "class");
  ExpectRefused({.jvm_options = {"@opts"}},
                "config: jvm_options: contains \"@opts\"; argument files are not read here, write "
                "the options into the list");
}

TEST(ValidateTaskConfigTest, ModeAndAgeAreCheckedByTheirPath) {
  struct Row {
    AgentBlock agent;
    bool health;
    const char* error;
  };
  const Row rows[] = {
      {{.mode = "once"},
       true,
       "config: agent.mode: \"once\" is unknown (allowed: \"reconnect\", \"one_shot\")"},
      {{.max_age = "1s"}, true, "config: agent.max_age: 1s is out of range (allowed: 1m to 168h)"},
      {{.mode = "one_shot"}, false, "config: agent.mode: \"one_shot\" needs health.enabled"},
      {{.max_age = "24h"}, false, "config: agent.max_age: needs health.enabled"},
  };
  for (const Row& row : rows) {
    TaskConfig config;
    config.agent = row.agent;
    config.health.enabled = row.health;
    ExpectRefused(config, row.error);
  }
  TaskConfig config;
  config.agent.mode = "one_shot";
  config.agent.max_age = "24h";
  EXPECT_OK(ValidateTaskConfig(config));
}

TEST(ValidateTaskConfigTest, HealthIsCheckedByItsPath) {
  struct Row {
    HealthBlock health;
    const char* error;
  };
  const Row rows[] = {
      {{.leftovers = "some"},
       "config: health.leftovers: \"some\" is unknown (allowed: \"durable\", \"keep\", \"kill\")"},
      {{.restart = {.attempts = -1}},
       "config: health.restart.attempts: -1 is out of range (allowed: 0 to 1000)"},
      {{.restart = {.interval = "10"}},
       "config: health.restart.interval: \"10\" is no duration; write it like \"90s\", \"5m\" or "
       "\"1h30m\""},
      {{.restart = {.delay = "-1s"}},
       "config: health.restart.delay: -1s is out of range (allowed: 0 to 168h)"},
      {{.restart = {.delay = "2m"}},
       "config: health.restart.max_delay: 1m is less than health.restart.delay, 2m"},
      {{.wedge_timeout = "4s"},
       "config: health.wedge_timeout: 4s is out of range (allowed: 5s to 168h)"},
      {{.controller_grace = "9s"},
       "config: health.controller_grace: 9s is out of range (allowed: 10s to 168h)"},
      {{.start_timeout = "soon"},
       "config: health.start_timeout: \"soon\" is no duration; write it like \"90s\", \"5m\" or "
       "\"1h30m\""},
      {{.thread_limit = -1},
       "config: health.thread_limit: -1 is out of range (allowed: 0 to 2048)"},
      {{.thread_limit = 2049},
       "config: health.thread_limit: 2049 is more than pids_limit, 2048: it could never be "
       "reached"},
  };
  for (const Row& row : rows) {
    TaskConfig config{.command = "/bin/true"};
    config.health = row.health;
    ExpectRefused(config, row.error);
  }
  TaskConfig config{.command = "/bin/true"};
  config.health.restart = {.attempts = 0, .interval = "1h30m", .delay = "0", .max_delay = "0"};
  EXPECT_OK(ValidateTaskConfig(config));
}

TEST(ValidateProgramChoiceTest, SomethingMustNameTheProgram) {
  EXPECT_THAT(
      ValidateProgramChoice({}, false),
      StatusIs(absl::StatusCode::kInvalidArgument,
               "config: no program: set agent { url = ... }, jar_path, class, command or image (or "
               "JENKINS_URL in the task's environment)"));
  EXPECT_OK(ValidateProgramChoice({}, true));
  EXPECT_OK(ValidateProgramChoice({.has_agent = true}, false));
  EXPECT_OK(ValidateProgramChoice({.jar_path = "a.jar"}, false));
  EXPECT_OK(ValidateProgramChoice({.class_name = "A"}, false));
  EXPECT_OK(ValidateProgramChoice({.command = "sh"}, false));
}

}  // namespace
}  // namespace jenkins_agent
