// Nomad's BasePlugin service: who we are, the schema of the plugin's config, the config.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "proto/nomad_base.grpc.pb.h"

namespace jenkins_agent {

// Adapter only; what to answer is given. Thread-safe as far as the two functions are, which may be
// called from any thread.
class BaseService final : public hashicorp::nomad::plugins::base::proto::BasePlugin::Service {
 public:
  using Spec = hashicorp::nomad::plugins::shared::hclspec::Spec;
  using NomadConfig = hashicorp::nomad::plugins::base::proto::NomadConfig;

  struct Plugin {
    std::string name;     // the driver's name in jobs
    std::string version;  // semantic version
    std::function<Spec()> config_schema;
    // `msgpack` may be empty; no NomadConfig when Nomad only validates. An error aborts the agent's
    // start with its message. Called twice and more: setting the same again changes nothing.
    std::function<absl::Status(const std::string& msgpack, const std::optional<NomadConfig>&)>
        set_config;
  };

  explicit BaseService(Plugin plugin) : plugin_(std::move(plugin)) {}

  grpc::Status PluginInfo(
      grpc::ServerContext* context,
      const hashicorp::nomad::plugins::base::proto::PluginInfoRequest* request,
      hashicorp::nomad::plugins::base::proto::PluginInfoResponse* response) override;
  grpc::Status ConfigSchema(
      grpc::ServerContext* context,
      const hashicorp::nomad::plugins::base::proto::ConfigSchemaRequest* request,
      hashicorp::nomad::plugins::base::proto::ConfigSchemaResponse* response) override;
  grpc::Status SetConfig(
      grpc::ServerContext* context,
      const hashicorp::nomad::plugins::base::proto::SetConfigRequest* request,
      hashicorp::nomad::plugins::base::proto::SetConfigResponse* response) override;

 private:
  const Plugin plugin_;
};

}  // namespace jenkins_agent
