// What plugin and image worker say to each other.
#include "driver/image/image_job.h"

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

ImageJob Sample() {
  return {.store = "/store",
          .image = "registry.example/a:1",
          .plain_http = true,
          .ca_file = "/ca.pem",
          .mirrors = {"https://mirror.example"},
          .credentials = Credentials{.user = "me", .password = "p\"w\n", .identity_token = ""},
          .auth_file = "/auth.json",
          .auth_helper = "pass",
          .sync = false};
}

TEST(ImageJobTest, ARequestIsOneLineAndComesBack) {
  const std::string line = ImageJobLine(Sample());
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  ASSERT_OK_AND_ASSIGN(const ImageJob job, ParseImageJob(line));
  EXPECT_EQ(job.store, "/store");
  EXPECT_EQ(job.image, "registry.example/a:1");
  EXPECT_TRUE(job.plain_http);
  EXPECT_EQ(job.ca_file, "/ca.pem");
  EXPECT_THAT(job.mirrors, ElementsAre("https://mirror.example"));
  EXPECT_EQ(job.credentials->password, "p\"w\n");
  EXPECT_EQ(job.auth_file, "/auth.json");
  EXPECT_EQ(job.auth_helper, "pass");
  EXPECT_FALSE(job.sync);
}

TEST(ImageJobTest, WhatIsLeftOutHasItsDefault) {
  ASSERT_OK_AND_ASSIGN(const ImageJob job,
                       ParseImageJob(R"({"store":"/s","image":"a","of_a_newer_plugin":1})"));
  EXPECT_FALSE(job.credentials.has_value());
  EXPECT_TRUE(job.sync);
  EXPECT_FALSE(job.plain_http);
}

TEST(ImageJobTest, WrongRequestsAreRefusedWithoutTheirSecrets) {
  for (const char* line :
       {R"({"image":"a"})", R"({"store":"/s"})", R"({"store":"s","image":"a"})",
        R"({"store":"/s","image":"a","ca_file":"x"})", "[]", "",
        R"({"store":"/s","image":"a","sync":1})",
        R"({"store":"/s","image":"a","credentials":"hunter2"})",
        R"({"store":"/s","image":"a","credentials":{"password":["hunter2"]}})"}) {
    const absl::StatusOr<ImageJob> job = ParseImageJob(line);
    EXPECT_THAT(job, StatusIs(absl::StatusCode::kInvalidArgument, Not(HasSubstr("hunter2"))));
  }
}

TEST(ImageJobTest, ReportsComeBack) {
  ImageReport report;
  report.result.progress = {
      .layers = 5, .cached_layers = 2, .done_layers = 1, .bytes = 1000, .done_bytes = 10};
  ASSERT_OK_AND_ASSIGN(const ImageReport news, ParseImageReport(ImageReportLine(report)));
  EXPECT_FALSE(news.finished);
  EXPECT_EQ(news.result.progress.cached_layers, 2);
  EXPECT_EQ(news.result.progress.done_bytes, 10);
  report.finished = true;
  report.result.manifest = Digest::Of("x");
  report.result.cached = true;
  ASSERT_OK_AND_ASSIGN(const ImageReport ready, ParseImageReport(ImageReportLine(report)));
  EXPECT_OK(ready.status);
  EXPECT_EQ(ready.result.manifest, Digest::Of("x"));
  EXPECT_TRUE(ready.result.cached);
  report.status = absl::UnavailableError(std::string(1 << 20, 'x') + "\xff");
  const std::string line = ImageReportLine(report);
  EXPECT_LT(line.size(), kMaxImageLineBytes);
  ASSERT_OK_AND_ASSIGN(const ImageReport failed, ParseImageReport(line));
  EXPECT_TRUE(absl::IsUnavailable(failed.status));
}

// The child may be somebody else's by then.
TEST(ImageJobTest, NonsenseIsNoReport) {
  for (const char* line :
       {"", "1", R"({"finished":true})", R"({"finished":true,"manifest":"sha256:../x"})",
        R"({"layers":-1})", R"({"layers":1e9})", R"({"layers":129})", R"({"finished":"yes"})"}) {
    EXPECT_THAT(ParseImageReport(line),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("report")))
        << line;
  }
}

}  // namespace
}  // namespace jenkins_agent
