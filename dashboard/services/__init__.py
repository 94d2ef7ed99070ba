"""In: what pages ask about studies, models and evaluations. Out: what they show. Here are all caches."""
