#include "driver/config/image_block.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "driver/config/plugin_config.h"
#include "driver/config/task_config.h"
#include "tests/config/msgpack_bytes.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

void ExpectRefused(const TaskConfig& config, const std::string& message) {
  EXPECT_THAT(ValidateTaskConfig(config), StatusIs(absl::StatusCode::kInvalidArgument, message));
}

TEST(DecodeTaskConfigTest, AnImageWithALogin) {
  ASSERT_OK_AND_ASSIGN(
      const TaskConfig config,
      DecodeTaskConfig(Map({{"image", Str("r.example/a:1")},
                            {"image_pull_policy", Str("always")},
                            {"image_pull_timeout", Str("20m")},
                            {"auth", Map({{"username", Str("u")}, {"password", Str("p")}})},
                            {"rootfs_size", Num(32768)},
                            {"args", Strings({"x"})}})));
  EXPECT_EQ(config.isolation.rootfs_size, 32768);
  EXPECT_EQ(config.image.image, "r.example/a:1");
  EXPECT_EQ(config.image.pull_policy, kPullAlways);
  EXPECT_EQ(ImageDuration(config.image.pull_timeout), std::chrono::minutes(20));
  EXPECT_TRUE(config.image.auth.present);
  EXPECT_EQ(config.image.auth.password, "p");
}

TEST(ValidateTaskConfigTest, AnImageNamesAProgramAndMayBeWritable) {
  EXPECT_OK(ValidateTaskConfig({.image = {.image = "a"}}));
  EXPECT_OK(ValidateProgramChoice({.image = {.image = "a"}}, false));
  EXPECT_OK(ValidateTaskConfig({.image = {.image = "a"}, .isolation = {.readonly_rootfs = false}}));
  EXPECT_OK(ValidateTaskConfig({.args = {"x"}, .image = {.image = "a"}}));
}

TEST(ValidateTaskConfigTest, AnImagesOptions) {
  ExpectRefused({.image = {.image = "a", .pull_policy = "sometimes"}},
                "config: image_pull_policy: \"sometimes\" is not known (allowed: "
                "\"if_not_present\", \"always\", \"never\")");
  ExpectRefused({.image = {.image = "a", .pull_timeout = "0s"}},
                "config: image_pull_timeout: 0s is out of range (allowed: 1s to 168h)");
  ExpectRefused({.image = {.auth = {true, "u", "p"}}}, "config: auth: there is no image");
  ExpectRefused({.image = {.image = "a", .auth = {true, "u", ""}}},
                "config: auth: password: is not set");
  // What may be a password in the wrong place is not repeated.
  EXPECT_THAT(
      ValidateTaskConfig({.image = {.image = "a", .auth = {true, "u:secret", "p"}}}).message(),
      Not(HasSubstr("secret")));
}

TEST(ValidateTaskConfigTest, AnImageMayHaveAUserNamespace) {
  EXPECT_OK(ValidateTaskConfig({.image = {.image = "a"}, .isolation = {.userns = true}}));
}

TEST(DecodePluginConfigTest, Images) {
  ASSERT_OK_AND_ASSIGN(
      const PluginConfig config,
      DecodePluginConfig(Map({{"images", Map({{"pins", Strings({"r.example/*"})},
                                              {"pre_pull", Strings({"r.example/a:1"})},
                                              {"gc", Map({{"image_max_age", Str("720h")}})}})}})));
  EXPECT_THAT(config.images.pins, ElementsAre("r.example/*"));
  EXPECT_THAT(config.images.pre_pull, ElementsAre("r.example/a:1"));
  EXPECT_EQ(config.images.gc.image_max_age, "720h");
  EXPECT_TRUE(config.images.gc.enabled);
}

TEST(ValidateImages, NamesTheOption) {
  const auto refusal = [](const ImagesBlock& images) {
    return std::string(ValidateImages(images).message());
  };
  EXPECT_OK(ValidateImages({}));
  EXPECT_EQ(refusal({.gc = {.high_watermark = 60}}),
            "images.gc.low_watermark: 75 is above high_watermark, 60");
  EXPECT_THAT(refusal({.gc = {.image_delay = "-1s"}}), HasSubstr("images.gc.image_delay: "));
  EXPECT_THAT(refusal({.gc = {.min_free = -1}}), HasSubstr("images.gc.min_free: "));
  EXPECT_THAT(refusal({.dir = "images"}), HasSubstr("images.dir: "));
  EXPECT_THAT(refusal({.registries = {{.host = ""}}}), HasSubstr("images.registry[0]: host: "));
  EXPECT_THAT(refusal({.registries = {{.host = "a"}, {.host = "a"}}}),
              AllOf(HasSubstr("images.registry[1].host: "), HasSubstr("twice")));
  EXPECT_THAT(refusal({.registries = {{.host = "a", .mirrors = {"m.example"}}}}),
              HasSubstr("mirrors: \"m.example\" does not begin with"));
  EXPECT_THAT(refusal({.pre_pull = std::vector<std::string>(101, "a")}),
              HasSubstr("images.pre_pull: more than 100"));
}

}  // namespace
}  // namespace jenkins_agent
