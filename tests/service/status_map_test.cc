#include "driver/service/status_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "driver/base/recoverable.h"
#include "driver/base/status.h"
#include "proto/nomad_structs.pb.h"

namespace jenkins_agent {
namespace {

namespace structs = hashicorp::nomad::plugins::shared::structs;
using ::testing::EndsWith;

TEST(ToGrpc, KeepsCodeAndMessage) {
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
  const grpc::Status status = ToGrpc(absl::NotFoundError("image x: not there"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "image x: not there");
  EXPECT_EQ(status.error_details(), "");
}

TEST(ToGrpc, EveryCodeButTheReservedOnesKeepsItsNumber) {
  for (int code = 1; code <= 16; ++code) {
    const auto absl_code = static_cast<absl::StatusCode>(code);
    const bool reserved =
        absl_code == absl::StatusCode::kUnavailable || absl_code == absl::StatusCode::kCancelled;
    EXPECT_EQ(ToGrpc(absl::Status(absl_code, "x")).error_code(),
              reserved ? grpc::StatusCode::UNKNOWN : static_cast<grpc::StatusCode>(code));
  }
}

TEST(ToGrpc, RecoverableHasTheBytesThatNomadLooksFor) {
  const grpc::Status status = ToGrpc(MakeRecoverable(absl::UnavailableError("registry is down")));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(), "registry is down");
  structs::RpcStatus details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), 9);
  EXPECT_EQ(details.message(), "registry is down");
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(),
            "type.googleapis.com/hashicorp.nomad.plugins.shared.structs.RecoverableError");
  EXPECT_EQ(details.details(0).value(), "\x08\x01");
}

TEST(ToGrpc, TheMarkSurvivesAnnotation) {
  const absl::Status marked = MakeRecoverable(absl::InternalError("disk full"));
  EXPECT_TRUE(IsRecoverable(Annotate(marked, "task a")));
  EXPECT_EQ(ToGrpc(Annotate(marked, "task a")).error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_FALSE(IsRecoverable(absl::InternalError("x")));
  EXPECT_TRUE(MakeRecoverable(absl::OkStatus()).ok());
}

TEST(ToGrpc, ALongMessageIsCutBetweenCharacters) {
  std::string message = "a";
  for (int i = 0; i < 5000; ++i) message += "\u20ac";
  const std::string cut = ToGrpc(absl::InternalError(message)).error_message();
  EXPECT_LE(cut.size(), 2003u);
  EXPECT_THAT(cut, EndsWith("\u20ac..."));
}

}  // namespace
}  // namespace jenkins_agent
