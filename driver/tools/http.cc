#include "driver/tools/http.h"

#include <curl/curl.h>
#include <openssl/x509_vfy.h>
#include <string.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr char kSystemCertificates[] = "/etc/ssl/certs/ca-certificates.crt";
constexpr size_t kMaxCertificateBytes = 4 << 20;
constexpr long kConnectTimeoutSeconds = 30;
// A transfer slower than this for a minute is given up.
constexpr long kLowSpeedBytesPerSecond = 100;
constexpr long kLowSpeedSeconds = 60;
constexpr int kPollMilliseconds = 1000;  // upper bound; libcurl knows its own timers

struct FreeUrl {
  void operator()(CURLU* url) const { ::curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, FreeUrl>;

Url ParseUrl(const std::string& text) {
  Url url(::curl_url());
  if (::curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) return nullptr;
  return url;
}

std::string UrlPart(const Url& url, CURLUPart part) {
  char* text = nullptr;
  if (::curl_url_get(url.get(), part, &text, 0) != CURLUE_OK) return "";
  std::string copy = text;
  ::curl_free(text);
  return absl::AsciiStrToLower(copy);
}

bool IsHttpUrl(const std::string& text) {
  const Url url = ParseUrl(text);
  if (url == nullptr) return false;
  const std::string scheme = UrlPart(url, CURLUPART_SCHEME);
  return scheme == "http" || scheme == "https";
}

absl::Status CheckRedirect(const std::string& from_text, const std::string& to_text) {
  const Url from = ParseUrl(from_text), to = ParseUrl(to_text);
  if (to == nullptr) return absl::PermissionDeniedError("redirects to something that is no url");
  const std::string scheme = UrlPart(to, CURLUPART_SCHEME);
  if (UrlPart(from, CURLUPART_HOST) != UrlPart(to, CURLUPART_HOST)) {
    return absl::PermissionDeniedError(absl::StrCat(
        "redirects to another host (", DisplayUrl(to_text), "), which is not followed"));
  }
  if (scheme != "https" && UrlPart(from, CURLUPART_SCHEME) == "https") {
    return absl::PermissionDeniedError("redirects from https to http, which is not followed");
  }
  return absl::OkStatus();
}

std::string Printable(absl::string_view text, size_t limit) {
  std::string result(text.substr(0, limit));
  for (char& c : result) {
    if (!absl::ascii_isprint(c)) c = '?';
  }
  return result;
}

// One answer as it comes in.
struct Transfer {
  Transfer(CURL* handle, const HttpRequest& wanted) : easy(handle), request(wanted) {}

  CURL* const easy;
  const HttpRequest& request;
  HttpResponse response;
  size_t header_bytes = 0;
  bool complete_enough = false;  // ended by us behind the headers
  absl::Status status;           // ended by us with this error

  bool TakeHeader(absl::string_view line) {
    header_bytes += line.size();
    if (header_bytes > kMaxHeaderBytes) {
      status = absl::UnavailableError("its answer has too many header bytes");
      return false;
    }
    line = absl::StripTrailingAsciiWhitespace(line);
    if (absl::StartsWith(line, "HTTP/")) {
      // A new head: after "100 Continue" comes the real one.
      const size_t space = line.find(' ');
      response.headers.clear();
      response.status_text = Printable(
          space == absl::string_view::npos ? line : line.substr(space + 1), kMaxStatusLineBytes);
    } else if (const size_t colon = line.find(':'); colon != absl::string_view::npos) {
      response.headers[absl::AsciiStrToLower(line.substr(0, colon))] =
          std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
    return true;
  }

  bool TakeBody(absl::string_view piece) {
    long code = 0;
    ::curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &code);
    if (code != 200 || !request.on_body) {
      complete_enough = true;
      return false;
    }
    status = request.on_body(piece);
    return status.ok();
  }
};

size_t OnHeader(char* data, size_t size, size_t count, void* user) {
  return static_cast<Transfer*>(user)->TakeHeader({data, size * count}) ? size * count : 0;
}

size_t OnBody(char* data, size_t size, size_t count, void* user) {
  return static_cast<Transfer*>(user)->TakeBody({data, size * count}) ? size * count : 0;
}

absl::Status CertificateError(CURL* easy) {
  long reason = X509_V_OK;  // then it is the host's name that does not fit
  ::curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &reason);
  if (reason == X509_V_OK) {
    return absl::UnavailableError("its certificate is for another host name");
  }
  return absl::UnavailableError(absl::StrCat("its certificate is not trusted (",
                                             ::X509_verify_cert_error_string(reason),
                                             "); set agent.ca_file"));
}

absl::Status TransferError(CURL* easy, CURLcode code) {
  long error_number = 0;
  ::curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &error_number);
  // libcurl's own text holds milliseconds: the same cause must give the same text.
  if (code == CURLE_COULDNT_CONNECT && error_number != 0) {
    return absl::UnavailableError(::strerror(static_cast<int>(error_number)));
  }
  if (code == CURLE_COULDNT_RESOLVE_HOST) {
    return absl::UnavailableError("the host's name cannot be resolved");
  }
  if (code == CURLE_PEER_FAILED_VERIFICATION) return CertificateError(easy);
  return absl::UnavailableError(::curl_easy_strerror(code));
}

class CurlClient : public HttpClient {
 public:
  CurlClient(std::string ca_pem, int cancel_fd)
      : ca_pem_(std::move(ca_pem)), cancel_fd_(cancel_fd), multi_(::curl_multi_init()) {}
  ~CurlClient() override { ::curl_multi_cleanup(multi_); }

  absl::StatusOr<HttpResponse> Get(const HttpRequest& request) override {
    // Not left to libcurl: it calls an answer that is no HTTP an unsupported protocol too.
    if (!IsHttpUrl(request.url)) return absl::InvalidArgumentError("is not an http or https url");
    HttpRequest hop = request;
    for (int redirects = 0; redirects <= kMaxRedirects; ++redirects) {
      std::string next;
      ASSIGN_OR_RETURN(HttpResponse response, GetOnce(hop, next));
      if (next.empty()) return response;
      RETURN_IF_ERROR(CheckRedirect(hop.url, next));
      hop.url = next;
    }
    return absl::PermissionDeniedError("redirects too often");
  }

  absl::Status Connect(const std::string& host, int port) override {
    const bool v6 = absl::StrContains(host, ':') && !absl::StartsWith(host, "[");
    const std::string url = absl::StrCat("http://", v6 ? "[" : "", host, v6 ? "]" : "", ":", port);
    CURL* easy = ::curl_easy_init();
    ::curl_easy_setopt(easy, CURLOPT_URL, url.c_str());
    ::curl_easy_setopt(easy, CURLOPT_PROXY, "");
    ::curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    ::curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
    ::curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, static_cast<long>(kConnectTimeout.count()));
    ::curl_multi_add_handle(multi_, easy);
    const absl::Cleanup free_all = [&] {
      ::curl_multi_remove_handle(multi_, easy);
      ::curl_easy_cleanup(easy);
    };
    CURLcode code = CURLE_OK;
    RETURN_IF_ERROR(Run(code));
    return code == CURLE_OK ? absl::OkStatus() : TransferError(easy, code);
  }

  absl::Status Wait(std::chrono::milliseconds duration) override {
    const auto end = std::chrono::steady_clock::now() + duration;
    for (;;) {
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          end - std::chrono::steady_clock::now());
      if (left.count() <= 0) return absl::OkStatus();
      RETURN_IF_ERROR(Poll(static_cast<int>(left.count()) + 1));
    }
  }

 private:
  // `next`: where a redirect leads to, else empty.
  absl::StatusOr<HttpResponse> GetOnce(const HttpRequest& request, std::string& next) {
    CURL* easy = ::curl_easy_init();
    Transfer transfer(easy, request);
    curl_slist* headers = nullptr;
    for (const std::string& header : request.headers) {
      headers = ::curl_slist_append(headers, header.c_str());
    }
    SetOptions(headers, transfer);
    ::curl_multi_add_handle(multi_, easy);
    const absl::Cleanup free_all = [&] {
      ::curl_multi_remove_handle(multi_, easy);
      ::curl_easy_cleanup(easy);
      ::curl_slist_free_all(headers);
    };
    CURLcode code = CURLE_OK;
    RETURN_IF_ERROR(Run(code));
    RETURN_IF_ERROR(transfer.status);
    if (code != CURLE_OK && !transfer.complete_enough) return TransferError(easy, code);
    long status = 0;
    ::curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    transfer.response.status = static_cast<int>(status);
    char* redirect = nullptr;
    ::curl_easy_getinfo(easy, CURLINFO_REDIRECT_URL, &redirect);
    if (redirect != nullptr) next = redirect;
    return std::move(transfer.response);
  }

  void SetOptions(curl_slist* headers, Transfer& transfer) {
    CURL* const easy = transfer.easy;
    const HttpRequest& request = transfer.request;
    ::curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
    ::curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    ::curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    // The plugin's own proxy settings are not the task's.
    ::curl_easy_setopt(easy, CURLOPT_PROXY, "");
    ::curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    ::curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, kConnectTimeoutSeconds);
    ::curl_easy_setopt(easy, CURLOPT_TIMEOUT, static_cast<long>(request.timeout.count()));
    ::curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, kLowSpeedBytesPerSecond);
    ::curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, kLowSpeedSeconds);
    ::curl_easy_setopt(easy, CURLOPT_USERAGENT, "nomad-driver-jenkins-agent");
    ::curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &OnHeader);
    ::curl_easy_setopt(easy, CURLOPT_HEADERDATA, &transfer);
    ::curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &OnBody);
    ::curl_easy_setopt(easy, CURLOPT_WRITEDATA, &transfer);
    if (!ca_pem_.empty()) {
      curl_blob blob{ca_pem_.data(), ca_pem_.size(), CURL_BLOB_NOCOPY};
      ::curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
    }
  }

  // Until the transfer is over; `code` is its result.
  absl::Status Run(CURLcode& code) {
    for (;;) {
      int running = 0;
      if (const CURLMcode error = ::curl_multi_perform(multi_, &running); error != CURLM_OK) {
        return absl::InternalError(::curl_multi_strerror(error));
      }
      int left = 0;
      if (const CURLMsg* message = ::curl_multi_info_read(multi_, &left); message != nullptr) {
        code = message->data.result;
        return absl::OkStatus();
      }
      RETURN_IF_ERROR(Poll(kPollMilliseconds));
    }
  }

  absl::Status Poll(int milliseconds) {
    curl_waitfd cancel{cancel_fd_, CURL_WAIT_POLLIN, 0};
    const CURLMcode error =
        ::curl_multi_poll(multi_, &cancel, cancel_fd_ >= 0 ? 1 : 0, milliseconds, nullptr);
    if (error != CURLM_OK) return absl::InternalError(::curl_multi_strerror(error));
    if (cancel.revents != 0) return absl::CancelledError("cancelled");
    return absl::OkStatus();
  }

  std::string ca_pem_;
  const int cancel_fd_;
  CURLM* const multi_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpClient>> HttpClient::Create(std::string ca_pem, int cancel_fd) {
  if (::curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
    return absl::InternalError("libcurl cannot be used");
  }
  if (!ca_pem.empty()) {
    // A given bundle replaces libcurl's; the agent's own -cert adds to the JDK's. Do as the agent.
    absl::StatusOr<std::string> system = ReadFile(kSystemCertificates, kMaxCertificateBytes);
    if (system.ok()) absl::StrAppend(&ca_pem, "\n", *system);
  }
  return std::make_unique<CurlClient>(std::move(ca_pem), cancel_fd);
}

std::string HostOfUrl(const std::string& text) {
  const Url url = ParseUrl(text);
  return url == nullptr ? "" : UrlPart(url, CURLUPART_HOST);
}

std::string DisplayUrl(const std::string& text) {
  const Url url = ParseUrl(text);
  if (url == nullptr) return "(not a url)";
  ::curl_url_set(url.get(), CURLUPART_USER, nullptr, 0);
  ::curl_url_set(url.get(), CURLUPART_PASSWORD, nullptr, 0);
  char* plain = nullptr;
  if (::curl_url_get(url.get(), CURLUPART_URL, &plain, 0) != CURLUE_OK) return "(not a url)";
  std::string copy = plain;
  ::curl_free(plain);
  return copy;
}

}  // namespace jenkins_agent
