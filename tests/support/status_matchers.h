// GoogleTest for absl::Status, which the packaged Abseil does not bring.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace jenkins_agent {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

MATCHER(IsOk, "is OK") {
  const absl::Status status = GetStatus(arg);
  if (!status.ok()) *result_listener << status.ToString();
  return status.ok();
}

// StatusIs(absl::StatusCode::kNotFound, HasSubstr("name"))
MATCHER_P2(StatusIs, code, message_matcher, "") {
  const absl::Status status = GetStatus(arg);
  *result_listener << status.ToString();
  return testing::ExplainMatchResult(code, status.code(), result_listener) &&
         testing::ExplainMatchResult(message_matcher, std::string(status.message()),
                                     result_listener);
}

}  // namespace jenkins_agent

#define ASSERT_OK(expr) ASSERT_THAT(expr, ::jenkins_agent::IsOk())
#define EXPECT_OK(expr) EXPECT_THAT(expr, ::jenkins_agent::IsOk())
#define ASSERT_OK_AND_ASSIGN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  ASSERT_OK(tmp);                                 \
  lhs = *std::move(tmp)
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL(TEST_CONCAT(status_or_, __LINE__), lhs, expr)
#define TEST_CONCAT_INNER(a, b) a##b
#define TEST_CONCAT(a, b) TEST_CONCAT_INNER(a, b)
