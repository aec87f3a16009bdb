#include "driver/service/base_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace jenkins_agent {
namespace {

namespace base = hashicorp::nomad::plugins::base::proto;
using ::testing::ElementsAre;

struct Received {
  std::string msgpack;
  std::optional<BaseService::NomadConfig> nomad_config;
};

class BaseServiceTest : public testing::Test {
 protected:
  BaseServiceTest()
      : service_({.name = "jenkins-agent",
                  .version = "1.2.3",
                  .config_schema =
                      [] {
                        BaseService::Spec spec;
                        (*spec.mutable_object()->mutable_attributes())["state_dir"]
                            .mutable_attr()
                            ->set_type("string");
                        return spec;
                      },
                  .set_config =
                      [this](const std::string& msgpack, const auto& nomad_config) {
                        received_.push_back({msgpack, nomad_config});
                        return answer_;
                      }}) {}

  grpc::Status SetConfig(const base::SetConfigRequest& request) {
    base::SetConfigResponse response;
    return service_.SetConfig(nullptr, &request, &response);
  }

  std::vector<Received> received_;
  absl::Status answer_;
  BaseService service_;
};

TEST_F(BaseServiceTest, SaysWhoItIs) {
  base::PluginInfoResponse response;
  EXPECT_TRUE(service_.PluginInfo(nullptr, nullptr, &response).ok());
  EXPECT_EQ(response.type(), base::DRIVER);
  EXPECT_THAT(response.plugin_api_versions(), ElementsAre("v0.1.0"));
  EXPECT_EQ(response.plugin_version(), "1.2.3");
  EXPECT_EQ(response.name(), "jenkins-agent");
}

TEST_F(BaseServiceTest, PassesTheSchemaOn) {
  base::ConfigSchemaResponse response;
  EXPECT_TRUE(service_.ConfigSchema(nullptr, nullptr, &response).ok());
  EXPECT_EQ(response.spec().object().attributes().at("state_dir").attr().type(), "string");
}

TEST_F(BaseServiceTest, TellsAValidationFromAStart) {
  base::SetConfigRequest request;
  EXPECT_TRUE(SetConfig(request).ok());
  request.set_msgpack_config("\x80");
  request.mutable_nomad_config()->mutable_driver()->set_clientminport(14000);
  EXPECT_TRUE(SetConfig(request).ok());
  ASSERT_EQ(received_.size(), 2u);
  EXPECT_EQ(received_[0].msgpack, "");
  EXPECT_FALSE(received_[0].nomad_config.has_value());
  EXPECT_EQ(received_[1].msgpack, "\x80");
  EXPECT_EQ(received_[1].nomad_config->driver().clientminport(), 14000u);
}

TEST_F(BaseServiceTest, ReturnsTheConfigsError) {
  answer_ = absl::InvalidArgumentError("state_dir: 'x' is not an absolute path");
  const grpc::Status status = SetConfig({});
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "state_dir: 'x' is not an absolute path");
}

}  // namespace
}  // namespace jenkins_agent
