#include "driver/image/gc.h"

#include "absl/strings/str_cat.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr int64_t kNow = 1'000'000;

Digest Id(int number) { return Digest::Of(absl::StrCat(number)); }

// An image that was last used `age` seconds ago.
StoredImage Image(int number, int64_t age, const std::vector<StoredLayer>& layers) {
  StoredImage image;
  image.manifest = Id(number);
  image.layers = layers;
  image.last_used = kNow - age;
  return image;
}

// Nothing presses but what a test adds.
GcPolicy Calm() {
  GcPolicy policy;
  policy.min_free = 0;
  policy.keep_recent = 0;
  return policy;
}

const DiskSpace kRoomy = {.total = 100 * kGiB, .free = 50 * kGiB};
const DiskSpace kFull = {.total = 100 * kGiB, .free = 10 * kGiB};  // 90 %: 15 GiB too much

TEST(ChooseImages, WithoutNeedEverythingStaysHoweverOld) {
  const auto choice = ChooseImages(Calm(), {Image(1, 900000, {{"a", kGiB}})}, {}, kRoomy, kNow);
  EXPECT_THAT(choice.images, IsEmpty());
  EXPECT_EQ(choice.missing, 0);
}

TEST(ChooseImages, AboveTheWatermarkTheLeastRecentlyUsedGoUntilTheLowOne) {
  const auto choice =
      ChooseImages(Calm(),
                   {Image(1, 1000, {{"a", 8 * kGiB}}), Image(2, 3000, {{"b", 8 * kGiB}}),
                    Image(3, 2000, {{"c", 8 * kGiB}})},
                   {}, kFull, kNow);
  EXPECT_THAT(choice.images, ElementsAre(Id(2), Id(3)));
  EXPECT_EQ(choice.freed, 16 * kGiB);
  EXPECT_EQ(choice.missing, 0);
}

TEST(ChooseImages, ASharedLayerIsFreedWithItsLastImageOnly) {
  const auto choice = ChooseImages(Calm(),
                                   {Image(1, 3000, {{"base", 9 * kGiB}, {"x", kGiB}}),
                                    Image(2, 2000, {{"base", 9 * kGiB}, {"y", kGiB}}),
                                    Image(3, 1000, {{"z", 9 * kGiB}, {"z", 9 * kGiB}})},
                                   {}, kFull, kNow);
  EXPECT_THAT(choice.images, ElementsAre(Id(1), Id(2), Id(3)));
  EXPECT_EQ(choice.freed, 20 * kGiB);
}

TEST(ChooseImages, WhatIsUsedPinnedYoungOrRecentStaysAndTheRestIsSaid) {
  GcPolicy policy = Calm();
  policy.keep_recent = 1;
  const auto choice = ChooseImages(
      policy,
      {Image(1, 9000, {{"a", 8 * kGiB}}),  // kept
       Image(2, 179, {{"b", 8 * kGiB}}),   // younger than the delay
       Image(3, 8000, {{"c", 8 * kGiB}}), Image(4, -50, {{"d", 8 * kGiB}})},  // most recent
      {Id(1)}, kFull, kNow);
  EXPECT_THAT(choice.images, ElementsAre(Id(3)));
  EXPECT_EQ(choice.missing, 7 * kGiB);
}

TEST(ChooseImages, AgeTakesAlsoRecentOnes) {
  GcPolicy policy;
  policy.max_age = std::chrono::seconds(3600);
  const auto choice = ChooseImages(policy, {Image(1, 3601, {{"a", 1}}), Image(2, 3600, {{"b", 1}})},
                                   {}, kRoomy, kNow);
  EXPECT_THAT(choice.images, ElementsAre(Id(1)));
}

TEST(ChooseImages, TheStoresOwnLimitAndTheFreeSpaceCount) {
  GcPolicy policy = Calm();
  policy.max_bytes = 10 * kGiB;
  const std::vector<StoredImage> images = {Image(1, 3000, {{"a", 8 * kGiB}}),
                                           Image(2, 2000, {{"b", 8 * kGiB}})};
  EXPECT_THAT(ChooseImages(policy, images, {}, kRoomy, kNow).images, ElementsAre(Id(1)));
  policy.max_bytes = 0;
  policy.min_free = 51 * kGiB;
  EXPECT_THAT(ChooseImages(policy, images, {}, kRoomy, kNow).images, ElementsAre(Id(1)));
}

TEST(GcPolicyTest, ContradictionsAreRefused) {
  EXPECT_OK(CheckGcPolicy(GcPolicy()));
  GcPolicy policy;
  policy.low_percent = 90;
  EXPECT_THAT(CheckGcPolicy(policy),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("low watermark (90)")));
  policy = GcPolicy();
  policy.delay = std::chrono::seconds(-1);
  EXPECT_THAT(CheckGcPolicy(policy),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("below")));
}

}  // namespace
}  // namespace jenkins_agent
