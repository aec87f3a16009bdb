#include "driver/service/base_service.h"

#include "driver/service/status_map.h"

namespace jenkins_agent {
namespace {

namespace base = hashicorp::nomad::plugins::base::proto;

constexpr char kDriverApiVersion[] = "v0.1.0";  // the only one there has ever been

}  // namespace

grpc::Status BaseService::PluginInfo(grpc::ServerContext*, const base::PluginInfoRequest*,
                                     base::PluginInfoResponse* response) {
  response->set_type(base::DRIVER);
  response->add_plugin_api_versions(kDriverApiVersion);
  response->set_plugin_version(plugin_.version);
  response->set_name(plugin_.name);
  return grpc::Status::OK;
}

grpc::Status BaseService::ConfigSchema(grpc::ServerContext*, const base::ConfigSchemaRequest*,
                                       base::ConfigSchemaResponse* response) {
  *response->mutable_spec() = plugin_.config_schema();
  return grpc::Status::OK;
}

grpc::Status BaseService::SetConfig(grpc::ServerContext*, const base::SetConfigRequest* request,
                                    base::SetConfigResponse*) {
  std::optional<NomadConfig> nomad_config;
  if (request->has_nomad_config()) nomad_config = request->nomad_config();
  return ToGrpc(plugin_.set_config(request->msgpack_config(), nomad_config));
}

}  // namespace jenkins_agent
