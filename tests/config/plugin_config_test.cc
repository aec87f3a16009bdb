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
    EXPECT_THAT(config.java_homes, IsEmpty());
  }
}

TEST(DecodePluginConfigTest, EveryOption) {
  ASSERT_OK_AND_ASSIGN(const PluginConfig config,
                       DecodePluginConfig(Map({{"allow_root", kTrue},
                                               {"java_homes", Strings({"/opt/jdk-17", "/opt/jdk"})},
                                               {"log_collection", Str("nomad")},
                                               {"state_dir", Str("/srv/state")}})));
  EXPECT_EQ(config.state_dir, "/srv/state");
  EXPECT_TRUE(config.allow_root);
  EXPECT_THAT(config.java_homes, ElementsAre("/opt/jdk-17", "/opt/jdk"));
}

TEST(DecodePluginConfigTest, Refuses) {
  ExpectRefused(Map({{"state_dir", Str("state")}}),
                "plugin config: state_dir: \"state\" is not an absolute path; start it with '/'");
  ExpectRefused(Map({{"log_collection", Str("driver")}}),
                "plugin config: log_collection: \"driver\" is not known (allowed: \"nomad\")");
  ExpectRefused(Map({{"java_homes", Strings({"/opt/jdk", "jdk"})}}),
                "plugin config: java_homes: \"jdk\" is not an absolute path; start it with '/'");
  ExpectRefused(Map({{"allow_root", Num(1)}}),
                "plugin config: allow_root: found a number, expected true or false");
}

}  // namespace
}  // namespace jenkins_agent
