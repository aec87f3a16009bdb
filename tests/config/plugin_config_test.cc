#include "driver/config/plugin_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/config/msgpack_bytes.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

void ExpectRefused(const std::string& bytes, const std::string& message) {
  EXPECT_THAT(DecodePluginConfig(bytes), StatusIs(absl::StatusCode::kInvalidArgument, message));
}

TEST(DecodePluginConfigTest, EmptyBytesAndNilsAreAllDefaults) {
  for (const std::string& bytes : {std::string(), Map({{"allow_root", kNil},
                                                       {"java_homes", kNil},
                                                       {"log_collection", kNil},
                                                       {"state_dir", kNil}})}) {
    ASSERT_OK_AND_ASSIGN(const PluginConfig config, DecodePluginConfig(bytes));
    EXPECT_EQ(config.state_dir, "/var/lib/nomad-driver-jenkins-agent");
    EXPECT_EQ(config.log_collection, "nomad");
    EXPECT_FALSE(config.allow_root);
    EXPECT_FALSE(config.isolation.allow_privileged);
    EXPECT_THAT(config.isolation.allow_caps, IsEmpty());
    EXPECT_THAT(config.isolation.allow_host_paths, IsEmpty());
    EXPECT_THAT(config.java_homes, IsEmpty());
  }
}

TEST(DecodePluginConfigTest, EveryOption) {
  ASSERT_OK_AND_ASSIGN(const PluginConfig config,
                       DecodePluginConfig(Map({{"allow_caps", Strings({"net_admin"})},
                                               {"allow_host_paths", Strings({"/srv/cache"})},
                                               {"allow_privileged", kTrue},
                                               {"allow_root", kTrue},
                                               {"java_homes", Strings({"/opt/jdk-17", "/opt/jdk"})},
                                               {"log_collection", Str("nomad")},
                                               {"state_dir", Str("/srv/state")}})));
  EXPECT_EQ(config.state_dir, "/srv/state");
  EXPECT_TRUE(config.allow_root);
  EXPECT_TRUE(config.isolation.allow_privileged);
  EXPECT_THAT(config.isolation.allow_caps, ElementsAre("net_admin"));
  EXPECT_THAT(config.isolation.allow_host_paths, ElementsAre("/srv/cache"));
  EXPECT_THAT(config.java_homes, ElementsAre("/opt/jdk-17", "/opt/jdk"));
}

TEST(DecodePluginConfigTest, LogsOfTheDriver) {
  const auto decode = [](const std::string& logs) {
    return DecodePluginConfig(Map({{"log_collection", Str("driver")}, {"logs", logs}}));
  };
  ASSERT_OK_AND_ASSIGN(PluginConfig config, decode(kNil));
  EXPECT_EQ(config.log_collection, "driver");
  EXPECT_EQ(config.logs.max_files, 10);
  EXPECT_EQ(config.logs.max_file_size, 10);
  ASSERT_OK_AND_ASSIGN(config, decode(Map({{"max_files", Num(3)}, {"max_file_size", Num(100)}})));
  EXPECT_EQ(config.logs.max_files, 3);
  EXPECT_EQ(config.logs.max_file_size, 100);

  const auto expect_refused = [&](const std::string& logs, const std::string& message) {
    EXPECT_THAT(decode(logs), StatusIs(absl::StatusCode::kInvalidArgument, message));
  };
  expect_refused(Map({{"max_files", Num(0)}}),
                 "plugin config: logs.max_files: 0 is out of range (allowed: 1 to 1000)");
  expect_refused(Map({{"max_files", Num(1001)}}),
                 "plugin config: logs.max_files: 1001 is out of range (allowed: 1 to 1000)");
  expect_refused(Map({{"max_file_size", Num(10241)}}),
                 "plugin config: logs.max_file_size: 10241 is out of range (allowed: 1 to 10240)");
  ExpectRefused(Map({{"logs", Map({{"max_files", Num(3)}})}}),
                "plugin config: logs: needs log_collection = \"driver\"; Nomad's own log files "
                "follow the job's logs block");
}

TEST(DecodePluginConfigTest, Refuses) {
  ExpectRefused(Map({{"state_dir", Str("state")}}),
                "plugin config: state_dir: \"state\" is not an absolute path; start it with '/'");
  ExpectRefused(Map({{"log_collection", Str("syslog")}}),
                "plugin config: log_collection: \"syslog\" is not known (allowed: \"nomad\", "
                "\"driver\")");
  ExpectRefused(Map({{"java_homes", Strings({"/opt/jdk", "jdk"})}}),
                "plugin config: java_homes: \"jdk\" is not an absolute path; start it with '/'");
  ExpectRefused(Map({{"allow_caps", Strings({"fly"})}}),
                "plugin config: allow_caps: \"fly\" is no capability (allowed: names of "
                "capabilities(7) such as net_admin)");
  ExpectRefused(Map({{"allow_host_paths", Strings({"srv"})}}),
                "plugin config: allow_host_paths: \"srv\" is not an absolute path; start it with "
                "'/'");
  ExpectRefused(Map({{"allow_root", Num(1)}}),
                "plugin config: allow_root: found a number, expected true or false");
}

}  // namespace
}  // namespace jenkins_agent
