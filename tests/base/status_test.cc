#include "driver/base/status.h"

#include <string>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::Eq;

absl::Status Fail() { return ErrnoStatus("open /x", ENOENT); }
absl::Status FailWithObject() {
  RETURN_IF_ERROR(Fail(), "task ", 7);
  return absl::OkStatus();
}
absl::StatusOr<int> Forward(absl::StatusOr<int> value) {
  ASSIGN_OR_RETURN(const int x, std::move(value), "forward");
  return x + 1;
}

TEST(Status, ErrnoNamesObjectAndCause) {
  EXPECT_THAT(Fail(),
              StatusIs(absl::StatusCode::kNotFound, Eq("open /x: No such file or directory")));
}

TEST(Status, EachLayerAddsItsNameOnce) {
  EXPECT_THAT(FailWithObject(), StatusIs(absl::StatusCode::kNotFound,
                                         Eq("task 7: open /x: No such file or directory")));
}

TEST(Status, AnnotateKeepsPayloadsAndLeavesOkAlone) {
  EXPECT_OK(Annotate(absl::OkStatus(), "x"));
  absl::Status status = absl::InternalError("bad");
  status.SetPayload("type", absl::Cord("detail"));
  const absl::Status annotated = Annotate(status, "disk: ");
  EXPECT_EQ(annotated.message(), "disk: bad");
  EXPECT_EQ(annotated.GetPayload("type"), absl::Cord("detail"));
}

TEST(Status, AssignOrReturnForwardsValueAndError) {
  ASSERT_OK_AND_ASSIGN(const int value, Forward(1));
  EXPECT_EQ(value, 2);
  EXPECT_THAT(Forward(absl::AbortedError("no")),
              StatusIs(absl::StatusCode::kAborted, Eq("forward: no")));
}

}  // namespace
}  // namespace jenkins_agent
