#include "driver/tools/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(RequestTest, ReadsAllKeysAndIgnoresNewerOnes) {
  ASSERT_OK_AND_ASSIGN(
      const AgentJarRequest request,
      ParseAgentJarRequest(R"({"urls":["http://a/","https://b/"],"name":"n","web_socket":true,
        "network_namespace":"/run/netns/x","resolv_conf":"/r","cache_dir":"/c","file":"/f",
        "root_pid":7,"ca_file":"/ca","newer":[1]})"));
  EXPECT_THAT(request.urls, ElementsAre("http://a/", "https://b/"));
  EXPECT_EQ(request.name, "n");
  EXPECT_TRUE(request.web_socket);
  EXPECT_EQ(request.network_namespace, "/run/netns/x");
  EXPECT_EQ(request.resolv_conf, "/r");
  EXPECT_EQ(request.cache_dir, "/c");
  EXPECT_EQ(request.file, "/f");
  EXPECT_EQ(request.root_pid, 7);
  EXPECT_EQ(request.ca_file, "/ca");
}

TEST(RequestTest, NamesTheWrongKey) {
  const struct {
    const char* document;
    const char* message;
  } cases[] = {
      {"", "JSON object"},
      {"[]", "JSON object"},
      {"{}", "'urls' is missing"},
      {R"({"urls":["http://a/"]})", "'cache_dir' is missing"},
      {R"({"urls":"http://a/"})", "'urls' must be a list"},
      {R"({"urls":["file:///etc/shadow"],"cache_dir":"/c"})", "'urls' must hold http"},
      {R"({"urls":["http://a/"],"cache_dir":"/c","name":"a\r\nX: y"})", "'name' must not"},
      {R"({"file":"/f","root_pid":"1"})", "'root_pid'"},
      {R"({"file":"/f","root_pid":-1})", "'root_pid'"},
      {R"({"file":"/f","web_socket":1})", "'web_socket'"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ParseAgentJarRequest(c.document),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.message)));
  }
}

}  // namespace
}  // namespace jenkins_agent
