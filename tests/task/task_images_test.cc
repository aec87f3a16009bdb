// What a start decides about its image, and who may have which.
#include "driver/task/task_images.h"

#include "driver/base/recoverable.h"
#include "driver/task/task_image.h"
#include "driver/task/user.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(ImageUse, FollowsThePolicy) {
  EXPECT_EQ(DecideImageUse(kPullIfNotPresent, true), ImageUse::kTakeKept);
  EXPECT_EQ(DecideImageUse(kPullIfNotPresent, false), ImageUse::kPull);
  EXPECT_EQ(DecideImageUse(kPullAlways, true), ImageUse::kPull);
  EXPECT_EQ(DecideImageUse(kPullAlways, false), ImageUse::kPull);
  EXPECT_EQ(DecideImageUse(kPullNever, true), ImageUse::kTakeKept);
  EXPECT_EQ(DecideImageUse(kPullNever, false), ImageUse::kRefuse);
}

// Somebody whom the registry refuses never gets what others were allowed to fetch.
TEST(ImageUse, AnAnswerOfTheRegistryCounts) {
  for (const absl::Status& answer :
       {absl::UnauthenticatedError(""), absl::PermissionDeniedError(""), absl::NotFoundError(""),
        absl::DataLossError(""), absl::InvalidArgumentError("")}) {
    EXPECT_FALSE(MayUseStale(answer)) << answer;
    EXPECT_FALSE(IsPassing(answer)) << answer;
  }
  EXPECT_TRUE(MayUseStale(absl::UnavailableError("")));
  EXPECT_TRUE(MayUseStale(absl::DeadlineExceededError("")));
  EXPECT_FALSE(MayUseStale(absl::ResourceExhaustedError("")));
  EXPECT_FALSE(MayUseStale(absl::CancelledError("")));
  EXPECT_TRUE(IsPassing(absl::ResourceExhaustedError("")));
  EXPECT_TRUE(IsPassing(absl::UnavailableError("")));
}

TEST(ImageJobOf, TheJobsLoginComesFirst) {
  ImagesBlock config;
  config.auth_file = "/etc/docker.json";
  RegistryBlock& registry = config.registries.emplace_back();
  registry.host = "r.example:5000";
  registry.plain_http = true;
  registry.mirrors = {"https://m.example"};
  registry.auth = {true, "node", "n"};
  ASSERT_OK_AND_ASSIGN(ImageJob job, MakeImageJob("r.example:5000/a/b", {}, config, "/store"));
  EXPECT_EQ(job.image, "r.example:5000/a/b:latest");
  EXPECT_EQ(job.store, "/store");
  EXPECT_TRUE(job.plain_http);
  EXPECT_THAT(job.mirrors, ElementsAre("https://m.example"));
  EXPECT_EQ(job.credentials->user, "node");
  ASSERT_OK_AND_ASSIGN(job,
                       MakeImageJob("r.example:5000/a/b", {true, "job", "j"}, config, "/store"));
  EXPECT_EQ(job.credentials->user, "job");
  // Another registry's login and mirrors are not its.
  ASSERT_OK_AND_ASSIGN(job, MakeImageJob("other.example/a", {}, config, "/store"));
  EXPECT_FALSE(job.credentials.has_value());
  EXPECT_FALSE(job.plain_http);
  EXPECT_THAT(job.mirrors, IsEmpty());
  EXPECT_EQ(job.auth_file, "/etc/docker.json");
  EXPECT_THAT(MakeImageJob("Not A Name", {}, config, "/store"), testing::Not(IsOk()));
}

TEST(Pins, AreNamesPatternsOrDigests) {
  const StoredRef ref = {.name = "r.example/ci/agent:17", .manifest = Digest::Of("x")};
  EXPECT_TRUE(MatchesPin("r.example/ci/agent:17", ref));
  EXPECT_TRUE(MatchesPin("r.example/ci/*", ref));
  EXPECT_TRUE(MatchesPin("*:17", ref));
  EXPECT_TRUE(MatchesPin(Digest::Of("x").ToString(), ref));
  EXPECT_FALSE(MatchesPin("r.example/ci/agent", ref));  // ":latest"
  EXPECT_FALSE(MatchesPin("r.example/ci/agent:*8", ref));
  EXPECT_FALSE(MatchesPin(Digest::Of("y").ToString(), ref));
  EXPECT_TRUE(MatchesPin("debian", {.name = "docker.io/library/debian:latest", .manifest = {}}));
}

TEST(ImagesConfig, NamesThatAreNoneAreRefusedByOption) {
  ImagesBlock config;
  config.pre_pull = {"r.example/a:1", "UPPER"};
  EXPECT_THAT(CheckImageNames(config).message(), HasSubstr("images.pre_pull: "));
  config.pre_pull = {};
  config.pins = {"r.example/*", Digest::Of("x").ToString(), "a b"};
  EXPECT_THAT(CheckImageNames(config).message(), HasSubstr("images.pins: "));
  config.pins.pop_back();
  EXPECT_OK(CheckImageNames(config));
}

TEST(ImagesConfig, BecomesAPolicy) {
  ImageGcBlock gc;
  gc.image_delay = "1s";  // a task's restart gives its image back and takes it again
  gc.image_max_age = "720h";
  gc.min_free = 3;
  const GcPolicy policy = PolicyOf(gc);
  EXPECT_EQ(policy.delay, std::chrono::seconds(30));
  EXPECT_EQ(policy.max_age, std::chrono::hours(720));
  EXPECT_EQ(policy.min_free, 3 << 20);
  EXPECT_EQ(policy.max_bytes, 0);
  EXPECT_EQ(policy.high_percent, 85);
}

constexpr char kPasswd[] =
    "root:x:0:0:root:/root:/bin/sh\n"
    "no line of passwd\n"
    "jenkins:x:1000:1001:,,,:/home/jenkins:/bin/sh\n"
    "2000:x:3000:3000::/home/odd:/bin/sh\n";
constexpr char kGroup[] = "root:x:0:\ndocker:x:999:a,jenkins\nbuild:x:1001:\nwheel:x:0:jenkins\n";

pb::UserSpec InImage(const std::string& user, const std::string& image_user) {
  const absl::StatusOr<pb::UserSpec> spec =
      ResolveImageUser(user, image_user, kPasswd, kGroup, /*allow_root=*/false);
  EXPECT_OK(spec);
  return spec.value_or(pb::UserSpec());
}
std::string Refusal(const std::string& user, const std::string& image_user) {
  return std::string(ResolveImageUser(user, image_user, kPasswd, kGroup, false).status().message());
}

TEST(ImageUser, IsTheJobsElseTheImagesElseNomadsElseNobody) {
  EXPECT_EQ(InImage("", "jenkins").uid(), 1000u);
  EXPECT_EQ(InImage("nomad-80001", "jenkins").uid(), 1000u);
  EXPECT_EQ(InImage("nomad-80001", "").uid(), 80001u);
  EXPECT_EQ(InImage("", "").uid(), 65534u);
  EXPECT_EQ(InImage("1234", "jenkins").uid(), 1234u);
  EXPECT_EQ(InImage("1234", "jenkins").gid(), 1234u);
}

TEST(ImageUser, NamesAreTheImages) {
  const pb::UserSpec jenkins = InImage("jenkins", "");
  EXPECT_EQ(jenkins.gid(), 1001u);
  EXPECT_EQ(jenkins.home(), "/home/jenkins");
  EXPECT_THAT(jenkins.groups(), ElementsAre(999));  // wheel is root's
  EXPECT_EQ(InImage("jenkins:docker", "").gid(), 999u);
  EXPECT_EQ(InImage("1000", "").name(), "jenkins");
  EXPECT_EQ(InImage("2000", "").uid(), 3000u);  // a name first, as docker has it
  // On every host, but not in this image.
  EXPECT_THAT(Refusal("daemon", ""), HasSubstr("'daemon' is not in the image's /etc/passwd"));
  EXPECT_THAT(Refusal("jenkins:staff", ""), HasSubstr("'staff' is not in the image's /etc/group"));
}

TEST(ImageUser, RootNeedsTheOperatorsWord) {
  for (const char* root : {"root", "0", "jenkins:root", "1:0"}) {
    EXPECT_THAT(Refusal(root, ""), HasSubstr("allow_root")) << root;
    EXPECT_THAT(Refusal("", root), HasSubstr("(of the image)' is root")) << root;
  }
  EXPECT_THAT(Refusal("4294967295", ""), HasSubstr("no user or group id"));
  EXPECT_OK(ResolveImageUser("", "root", kPasswd, kGroup, /*allow_root=*/true));
}

TEST(ImageJava, IsLookedForWhereTheImageSays) {
  ImageConfig config;
  config.env = {"PATH=/opt/java/openjdk/bin:/usr/bin:bin:/bin", "JAVA_HOME=/opt/jdk"};
  EXPECT_THAT(JavaHomesNamedBy(config), ElementsAre("/opt/jdk", "/opt/java/openjdk", "/usr"));
}

}  // namespace
}  // namespace jenkins_agent
