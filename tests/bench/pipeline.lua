-- For wrk: 16 requests in one write, then the 16 responses.
function init()
  sixteen = wrk.format("GET", "/"):rep(16)
end

function request()
  return sixteen
end
